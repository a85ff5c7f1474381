"""One person under two ids, or in two cohorts: found by id, by facts that chance would not repeat, and by the
barcodes of nuclei."""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import poisson

from oligo_ad.data.columns import ALIASES
from oligo_ad.data.encoding import ALLELES, encode_column
from oligo_ad.data.people import SEXES
from oligo_ad.data.values import is_missing, key, text_of
from oligo_ad.errors import listing
from oligo_ad.facts import DonorFacts
from oligo_ad.record import Record

# What stays the same of a person, by the obs columns that hold it.
FACTS = {
    "age": ALIASES["age"],
    "sex": ALIASES["sex"],
    "APOE": ALIASES["apoe"],
    "PMI": (*ALIASES["pmi"], "Post-mortem interval", "post_mortem_interval", "pmi_hours"),
    "education": (*ALIASES["education"], "years_of_education"),
    "brain pH": ("Brain pH", "brain_ph", "pH", "ph"),
    "brain weight": ("Fresh Brain Weight", "Brain Weight", "brain_weight"),
}
FEWEST = 4  # facts known of both
UNLIKELY = 0.05  # probability of as many equal pairs by chance, above which nobody is named
SEQUENCE = r"([ACGT]{14,})"  # of a barcode, whatever stands before and after it
SAME_NUCLEI = 0.2  # share of the smaller donor's barcodes; of two libraries, chance shares below .01
FEWEST_BARCODES = 10
UNKNOWN = "-"


class People(NamedTuple):
    """What identifies the donors of a cohort.

    `key` of each id, by donor. `facts` [donors, FACTS]: a hash of each fact, empty where unknown. `barcodes`:
    donor and the sequence in the barcode of each nucleus; without rows where they are not known.
    """

    key: pd.Series
    facts: pd.DataFrame
    barcodes: pd.DataFrame


class Alike(NamedTuple):
    """Donors that have the same facts, and how many pairs of donors would have by chance."""

    pairs: list[tuple[str, str]]
    by_chance: float

    @property
    def is_telling(self) -> bool:
        """Whether chance makes as many pairs only rarely."""
        return bool(self.pairs) and float(poisson.sf(len(self.pairs) - 1, self.by_chance)) < UNLIKELY


def people_of(donors: pd.DataFrame, cells: pd.DataFrame | None = None) -> People:
    """Of a cohort: its donor table, with obs columns under `obs:…`, and where wanted its nuclei."""
    ids = donors.index.astype(str)
    values = {fact: _values(fact, donors) for fact in FACTS}
    facts = {fact: [_hashed(fact, one) for one in own] for fact, own in values.items()}
    return People(_keys(ids), pd.DataFrame(facts, index=ids, dtype=object), _sequences(cells))


def people_in(record: Record) -> People:
    """Of a run, from what it has recorded: all its donors, and the nuclei that its first fold predicted."""
    facts = record.facts.donors | record.facts.locked
    cells = record.folds[0].predictions if record.folds else None
    table = [_read(of) for of in facts.values()]
    return People(
        _keys(facts), pd.DataFrame(table, list(facts), list(FACTS), dtype=object), _sequences(cells)
    )


def person(people: People, donor: str) -> str:
    """The facts of a donor as text, for `DonorFacts.person`."""
    return " ".join(hashed or UNKNOWN for hashed in people.facts.loc[donor])


def twins(people: People) -> list[str]:
    """A note on donors of one cohort that may be one person."""
    found = alike(people.facts)
    if not found.is_telling:
        return []
    pairs = [f"{one} and {other}" for one, other in found.pairs]
    return [f"{_counted(found)} and may be one person in two parts of a fold: {listing(pairs, 4)}"]


def shared(own: People, other: People) -> list[str]:
    """The donors that two cohorts share, as sentences; none where they share none."""
    partner = {value: donor for donor, value in other.key.items()}
    by_id = {donor: partner[value] for donor, value in own.key.items() if value in partner}
    sentences = []
    if by_id:
        remark = _others(own, other, by_id)
        sentences.append(f"{_donors(len(by_id))} in both, by id: {listing(by_id, 6)}{remark}")
    found = alike(own.facts.drop(list(by_id)), other.facts)
    if found.is_telling:
        pairs = [f"{one} ({twin} there)" for one, twin in found.pairs]
        sentences.append(f"by other ids, {_counted(found)}: {listing(pairs, 6)}")
    nuclei = [pair for pair in same_nuclei(own.barcodes, other.barcodes) if by_id.get(pair[0]) != pair[1]]
    if nuclei:
        pairs = [f"{one} ({twin} there, {n:,} barcodes)" for one, twin, n in nuclei]
        sentences.append(f"by other ids, {_donors(len(nuclei))} there by their barcodes: {listing(pairs, 6)}")
    return sentences


def alike(own: pd.DataFrame, other: pd.DataFrame | None = None) -> Alike:
    """Donors of two cohorts, or two of one, with the same in every fact that is known of both.

    By chance, two donors agree in each fact as often as all pairs do, were the facts independent.

    Args:
        own: [donors, facts] text, empty where unknown.
        other: of the other cohort; None for pairs within `own`.
    """
    both = own if other is None else pd.concat([own, other])
    codes = np.stack([pd.factorize(both[fact].where(both[fact] != ""))[0] for fact in FACTS], axis=1)
    first, second = codes[: len(own)], codes[: len(own)] if other is None else codes[len(own) :]
    known = (first[:, None] >= 0) & (second[None] >= 0)
    same = known & (first[:, None] == second[None])
    if other is None:
        upper = np.triu(np.ones(known.shape[:2], bool), 1)[:, :, None]
        known, same = known & upper, same & upper
    enough = known.sum(2) >= FEWEST
    ids = both.index[: len(own)], both.index[: len(own)] if other is None else both.index[len(own) :]
    pairs = [(ids[0][i], ids[1][j]) for i, j in np.argwhere(enough & (same == known).all(2))]
    agree = same.sum((0, 1)) / np.maximum(known.sum((0, 1)), 1)
    by_chance = np.where(known[enough], agree, 1.0).prod(axis=1).sum()
    return Alike(pairs, float(by_chance))


def same_nuclei(own: pd.DataFrame, other: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Donors of two cohorts with the same barcodes, and how many; a few are shared by chance."""
    pairs = own.merge(other, on="sequence", suffixes=("", " there")).groupby(["donor", "donor there"]).size()
    n_own, n_other = own.groupby("donor").size(), other.groupby("donor").size()
    return [
        (one, twin, int(n))
        for (one, twin), n in pairs.items()
        if n >= max(FEWEST_BARCODES, SAME_NUCLEI * min(n_own[one], n_other[twin]))
    ]


def _keys(ids: Iterable[str]) -> pd.Series:
    names = list(ids)
    return pd.Series([key(one) for one in names], names, dtype=object)


def _values(fact: str, donors: pd.DataFrame) -> list[str]:
    """A fact of each donor in one spelling; empty where unknown."""
    name = next((name for name in FACTS[fact] if f"obs:{name}" in donors), None)
    if name is None:
        return [""] * len(donors)
    raw = donors[f"obs:{name}"]
    if fact == "sex":
        return [_sex(text_of(value), name) for value in raw]
    if fact == "APOE":
        alleles = pd.DataFrame({allele: encode_column(allele, raw)[0][allele] for allele in ALLELES})
        return ["" if np.isnan(of).any() else "/".join(f"{n:g}" for n in of) for of in alleles.to_numpy()]
    encoded = encode_column(fact.lower() if fact.lower() in ALIASES else name, raw)[0]
    if len(encoded) != 1 or next(iter(encoded)).startswith(f"{name}="):  # text, or of nobody
        return [""] * len(donors)
    (numbers,) = encoded.values()
    # Files round differently; an age may be in whole years.
    return ["" if np.isnan(n) else f"{np.floor(n) if fact == 'age' else n:.3g}" for n in numbers]


def _sex(text: str, column: str) -> str:
    if is_missing(text):
        return ""
    word = key(text)
    return {"1": "male", "0": "female"}.get(word, word) if column == "msex" else SEXES.get(word, word)


def _hashed(fact: str, value: str) -> str:
    return hashlib.sha256(f"{fact}={value}".encode()).hexdigest()[:8] if value else ""


def _read(facts: DonorFacts) -> list[str]:
    """The facts of a donor; unknown in runs of earlier versions."""
    words = ["" if word == UNKNOWN else word for word in facts.person.split()]
    return words if len(words) == len(FACTS) else [""] * len(FACTS)


def _sequences(cells: pd.DataFrame | None) -> pd.DataFrame:
    """Donor and sequence of nuclei whose barcode holds one."""
    if cells is None or cells["barcode"].isna().all():
        return pd.DataFrame({"donor": [], "sequence": []}, dtype=object)
    sequence = cells["barcode"].astype(str).str.extract(SEQUENCE, flags=re.IGNORECASE)[0]
    table = pd.DataFrame({"donor": cells["donor"].astype(str), "sequence": sequence.str.upper()})
    return table.dropna().drop_duplicates()


def _others(own: People, other: People, by_id: dict[str, str]) -> str:
    """A remark on donors of the same id whose sex or genotype tells that they are others."""
    one, twin = own.facts.loc[list(by_id)], other.facts.loc[list(by_id.values())]
    told = (one[["sex", "APOE"]].to_numpy(), twin[["sex", "APOE"]].to_numpy())
    n = int(((told[0] != told[1]) & (told[0] != "") & (told[1] != "")).any(axis=1).sum())
    return f" ({n} of them with another sex or genotype there: other people)" if n else ""


def _counted(found: Alike) -> str:
    n = len(found.pairs)
    pairs = "1 pair of donors agrees" if n == 1 else f"{n} pairs of donors agree"
    return (
        f"{pairs} in all that is known of both, {FEWEST} or more of {listing(FACTS, len(FACTS))} (chance "
        f"makes {found.by_chance:.2g} pairs agree),"
    )


def _donors(n: int) -> str:
    return "1 donor is" if n == 1 else f"{n} donors are"
