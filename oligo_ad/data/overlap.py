"""One person under two ids, or in two cohorts: found by id, and by facts that chance would not repeat."""

import hashlib
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from oligo_ad.data.covariates import encode
from oligo_ad.data.values import key
from oligo_ad.errors import listing
from oligo_ad.facts import DonorFacts

FACTS = ("age", "sex", "apoe4", "apoe2", "pmi", "education")
FEWEST = 4  # known facts of a person
UNLIKELY = 0.05  # pairs that chance makes equal, above which equal facts mean nothing


class People(NamedTuple):
    """What identifies the donors of a cohort: `key` of each id, and a hash of its `facts`, empty where too
    few are known or where chance repeats them."""

    key: pd.Series
    facts: pd.Series


def people_of(donors: pd.DataFrame) -> People:
    """Of a cohort's donor table."""
    facts = encode(donors, FACTS)
    known = facts.notna().sum(axis=1) >= FEWEST
    telling = known & (expected_pairs(facts[known]) < UNLIKELY)
    hashed = [
        hashlib.sha256(repr([round(float(v), 4) for v in row]).encode()).hexdigest()[:16] if yes else ""
        for row, yes in zip(facts.to_numpy(), telling, strict=True)
    ]
    ids = donors.index.astype(str)
    return People(pd.Series([key(one) for one in ids], ids), pd.Series(hashed, ids))


def people_in(facts: dict[str, DonorFacts]) -> People:
    """Of a run, from what it has recorded of its donors."""
    keys = pd.Series([key(donor) for donor in facts], list(facts), dtype=object)
    return People(keys, pd.Series([of.person for of in facts.values()], list(facts), dtype=object))


def expected_pairs(facts: pd.DataFrame) -> float:
    """How many pairs of these donors chance makes equal in all facts, were the facts independent."""
    if len(facts) < 2:
        return 0.0
    pairs = len(facts) * (len(facts) - 1) / 2
    expected = pairs
    # Levels of one fact are one fact.
    names = pd.Series([str(name).partition("=")[0] for name in facts], dtype=object)
    for name in names.unique():
        counts = facts.loc[:, (names == name).to_numpy()].value_counts(dropna=False)
        expected *= float((counts * (counts - 1) / 2).sum()) / pairs
    return expected


def twins(people: People) -> list[str]:
    """A note on donors of one cohort that may be one person."""
    found = [
        f"{first} and {second}"
        for facts, own in people.facts.groupby(people.facts)
        if facts
        for first, second in combinations(own.index, 2)
    ]
    if not found:
        return []
    return [
        f"{len(found)} pairs of donors have the same age, sex, APOE genotype and what else is known of them, "
        f"and may be one person in two parts of a fold: {listing(found, 4)}"
    ]


def shared(own: People, other: People) -> list[str]:
    """The donors that two cohorts share, as sentences; none where they share none."""
    same_id = sorted(own.key.index[own.key.isin(other.key)])
    facts = own.facts[(own.facts != "") & own.facts.isin(other.facts)].drop(same_id, errors="ignore")
    sentences = []
    if same_id:
        sentences.append(f"{len(same_id)} donors are in both, by id: {listing(same_id, 6)}")
    if len(facts):
        partner = {value: donor for donor, value in other.facts.items()}
        pairs = [f"{donor} ({partner[value]} there)" for donor, value in facts.items()]
        sentences.append(f"{len(facts)} more have the facts of a donor there: {listing(pairs, 6)}")
    return sentences
