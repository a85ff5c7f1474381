"""Which matrix of a file holds raw counts, and whether values are log-normalised, found on a sample.

Normalising twice is impossible by construction: counts are normalised once, here; a file without
counts must hold log values, which are taken as they are, or as natural logarithms of the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.sparse as sp

from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage import candidates as seen
from oligo_ad.storage.atlas import Atlas
from oligo_ad.storage.candidates import Candidate, Sampled, is_counts

TARGET = 10_000  # counts per nucleus after normalisation; fixed, so that no other nucleus matters
# Layers whose names mean raw counts, the first preferred; case does not matter.
USUAL_NAMES = ("umis", "counts", "raw_counts", "raw", "umi", "count", "umi_counts", "counts_raw", "raw_count")
# Layers of RNA velocity: parts of the counts, whatever their values.
VELOCITY = ("spliced", "unspliced", "ambiguous")


@dataclass(frozen=True)
class Expression:
    """The matrix to read. `content` says what its values are, `evidence` how that was found out.

    `factor` turns stored logarithms into natural ones. `candidates`: every matrix of the file, with what was
    seen in it and why it was taken or passed over. `notes`: for the user. `doubt`: why the values may not be
    what they are taken for; empty where nothing speaks against it.
    """

    matrix: str
    content: Literal["counts", "log"]
    evidence: str
    factor: float = 1.0
    candidates: tuple[Candidate, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    doubt: str = field(default="", compare=False)


class NoExpressionError(UserError):
    """No matrix of the file can be used; with what was seen in each."""

    def __init__(self, message: str, candidates: tuple[Candidate, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


def find_expression(atlas: Atlas, wanted: str) -> Expression:
    """Choose the matrix: raw counts when there are any, else log values.

    Counts are looked for in layers whose names mean counts, then in .raw and X, then in other layers.

    Args:
        atlas: the file.
        wanted: `auto`; `none` to take X as log values; or where the counts are: X, raw, a layer.

    Raises:
        UserError: `wanted` is not there or holds no counts, several matrices may be the counts, or there are
            neither counts nor log values.
    """
    choice = _Choice(atlas)
    if wanted not in ("auto", "none"):
        return choice.asked(_named(atlas, wanted), wanted)
    if wanted == "none":
        return choice.logarithms(asked=True)
    usual = sorted((name for name in atlas.matrices if _rank(name) is not None), key=lambda n: _rank(n) or 0)
    places = [name for name in ("raw/X", "X") if name in atlas.matrices]
    counts = [one for one in map(choice.look, [*usual, *places]) if one.flaw is None]
    if named := [one for one in counts if one.matrix in usual]:
        return choice.counts(named[0])
    if counts:
        # A part of X in .raw is not what X was made of.
        return choice.counts(counts[-1] if seen.is_part(counts[0].rows, counts[-1].rows) else counts[0])
    if other := choice.unnamed():
        return choice.counts(other)
    return choice.logarithms(asked=False)


class _Choice:
    """Looks at matrices of a file, each once, and says what is made of them."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._samples: dict[str, Sampled] = {}

    def look(self, matrix: str) -> Sampled:
        """A sample of a matrix."""
        if matrix not in self._samples:
            self._samples[matrix] = seen.sample(self._atlas, matrix)
        return self._samples[matrix]

    def asked(self, matrix: str, wanted: str) -> Expression:
        """The counts that the user named, which need only be whole."""
        chosen = self.look(matrix)
        if not is_counts(chosen.rows):
            raise self._refusal(
                f"data.counts={wanted}: {matrix} does not hold raw counts (whole numbers ≥ 0): it holds "
                f"{chosen.flaw}. Use data.counts=auto, or data.counts=none to take X as log values."
            )
        doubt = f"{matrix}, named as raw counts, holds {chosen.flaw}" if chosen.flaw else ""
        return self._made(chosen, "counts", f"raw counts in {matrix}, as asked", doubt=doubt)

    def counts(self, chosen: Sampled) -> Expression:
        """Counts that were found."""
        notes = [
            f"{one.matrix} holds other whole numbers than {chosen.matrix}, whose are taken as the raw counts "
            f"({seen.describe(one.rows)}); data.counts={counts_word(one.matrix)} takes {one.matrix}"
            for one in self._samples.values()
            if one.flaw is None and one.rows.shape == chosen.rows.shape and not _alike(one, chosen)
        ]
        notes += [
            f"{chosen.matrix} holds nothing of {missing} of {one.rows.shape[0]} nuclei looked at, whose "
            f"values are in {one.matrix}: a run that takes such nuclei is refused"
            for one in self._samples.values()
            if (missing := _only_elsewhere(chosen, one))
        ]
        if _rank(chosen.matrix) is None and chosen.matrix.startswith("layers/"):
            notes.append(f"raw counts are taken from {chosen.matrix}, whose name does not mean counts")
        agreement = self._agreement(chosen)
        return self._made(chosen, "counts", f"raw counts in {chosen.matrix}; {agreement}", notes)

    def unnamed(self) -> Sampled | None:
        """The one other layer that can be counts.

        Raises:
            NoExpressionError: there are several, and nothing tells them apart.
        """
        names = [name for name in self._atlas.matrices if name.startswith("layers/") and _rank(name) is None]
        whole = [one for one in map(self.look, names) if one.flaw is None]
        velocity = [one for one in whole if _plain(one.matrix) in VELOCITY]
        whole = [one for one in whole if one not in velocity]
        whole = [one for one in whole if not any(seen.is_part(one.rows, other.rows) for other in whole)]
        if len(velocity) > 1 and not whole:
            raise self._several(velocity)
        if any(not _alike(one, whole[0]) for one in whole[1:]):
            raise self._several(whole)
        return whole[0] if whole else None

    def logarithms(self, asked: bool) -> Expression:
        """Log values, of X, or of .raw where X was scaled."""
        places = [name for name in (("X",) if asked else ("X", "raw/X")) if name in self._atlas.matrices]
        flaws = []
        for one in map(self.look, places):
            if asked and one.flaw is None:
                raise self._refusal(
                    "data.counts=none, but X holds raw counts, no log values. Use data.counts=auto."
                )
            if is_counts(one.rows):
                flaw: str | None = f"holds whole numbers that are no raw counts: {one.flaw}"
            else:
                flaw = seen.flaw_of_logarithms(one.rows)
            if flaw is None:
                return self._logarithm(one)
            flaws.append(f"{one.matrix} of {self._atlas.path.name} {flaw}")
        flaws = flaws or [f"X of {self._atlas.path.name} is empty"]
        raise self._refusal(
            f"{'; '.join(flaws)}; and there are no raw counts. {self._passed_over()}Give a file with raw "
            "counts (whole numbers) or ln(1 + counts per 10,000), or name the counts with data.counts=LAYER."
        )

    def _logarithm(self, one: Sampled) -> Expression:
        where, found = f"{one.matrix} of {self._atlas.path.name}", seen.find_logarithm(one.rows)
        notes = [
            f"{other.matrix} is passed over: no raw counts, it holds {other.flaw}"
            for other in self._samples.values()
            if _rank(other.matrix) is not None
        ]
        if found is None:
            doubt = (
                f"{where} is taken as log-normalised, but its nuclei do not sum to the same once the "
                "logarithm is undone: genes were left out, or it is something else"
            )
            largest = one.rows.data.max(initial=0)
            evidence = f"values in {where} taken as log-normalised (largest {largest:.2f})"
            return self._made(one, "log", evidence, notes, doubt=doubt)
        evidence = f"log-normalised values in {where}, {found.target:,.0f} counts per nucleus"
        if abs(found.target - TARGET) > 0.01 * TARGET:
            notes.append(
                f"{where} is normalised to {found.target:,.4g} counts per nucleus, not to {TARGET:,}"
            )
        if found.base != np.e:
            evidence += f", base {found.base:.0f}: read as natural logarithms"
            notes.append(f"{where} holds logarithms to the base {found.base:.0f}, read as natural logarithms")
        factor = 1.0 if found.base == np.e else float(np.log(found.base))
        return self._made(one, "log", evidence, notes, factor)

    def _agreement(self, counts: Sampled) -> str:
        """How X relates to the counts found elsewhere, on the sample."""
        if counts.matrix == "X":
            return "normalised once, by this program"
        if "X" not in self._atlas.matrices:
            return "X is empty"
        given = self.look("X").rows
        if counts.rows.shape != given.shape:
            return "X has other genes"
        if seen.are_same(counts.rows, given):
            return "X holds the same"
        expected = log_normalise(counts.rows, np.asarray(counts.rows.sum(axis=1)).ravel())
        if abs(expected - given).max() < 1e-3:
            return "X is ln(1 + counts per 10,000) of them, as recomputed"
        return "X is something else and is not used"

    def _made(
        self,
        chosen: Sampled,
        content: Literal["counts", "log"],
        evidence: str,
        notes: Iterable[str] = (),
        factor: float = 1.0,
        doubt: str = "",
    ) -> Expression:
        taken = f"taken as {'raw counts' if content == 'counts' else 'log values'}"
        said = tuple(notes) + ((doubt,) if doubt else ())
        return Expression(
            chosen.matrix, content, evidence, factor, self._candidates(chosen, taken), said, doubt
        )

    def _candidates(self, chosen: Sampled | None = None, taken: str = "") -> tuple[Candidate, ...]:
        return tuple(
            Candidate(name, self._atlas.layout(name), *self._verdict(name, chosen, taken))
            for name in self._atlas.matrices
        )

    def _verdict(self, name: str, chosen: Sampled | None, taken: str) -> tuple[str, str]:
        """What was seen in a matrix, and what became of it."""
        if name not in self._samples:
            return "not looked at", "not needed"
        one = self._samples[name]
        if one is chosen:
            return seen.describe(one.rows), taken
        if one.flaw:
            why = f"no raw counts: {one.flaw}"
        elif chosen and seen.are_same(one.rows, chosen.rows):
            why = f"the same as {chosen.matrix}"
        elif chosen and seen.is_part(one.rows, chosen.rows):
            why = f"a part of {chosen.matrix}"
        else:
            why = "may be raw counts"
        return seen.describe(one.rows), why

    def _several(self, several: list[Sampled]) -> NoExpressionError:
        found = "; ".join(f"{one.matrix} ({seen.describe(one.rows)})" for one in several)
        return self._refusal(
            f"several layers of {self._atlas.path.name} may hold the raw counts, and no name says which: "
            f"{found}. Name one, for instance data.counts={counts_word(several[0].matrix)}."
        )

    def _passed_over(self) -> str:
        """What is wrong with the layers that might have been counts."""
        layers = [one for one in self._samples.values() if one.matrix not in ("X", "raw/X") and one.flaw]
        return "".join(f"{one.matrix} holds {one.flaw}. " for one in layers)

    def _refusal(self, message: str) -> NoExpressionError:
        return NoExpressionError(message, self._candidates())


def log_normalise(counts: sp.csr_matrix, totals: np.ndarray) -> sp.csr_matrix:
    """ln(1 + counts per 10,000) of each nucleus. `totals` [nuclei]: counts over all its genes."""
    logged = counts.astype(np.float32, copy=True)
    scale = (TARGET / np.maximum(totals, 1)).astype(np.float32)
    logged.data *= np.repeat(scale, np.diff(counts.indptr))
    np.log1p(logged.data, out=logged.data)
    return logged


def require(block: sp.csr_matrix, expression: Expression, file: str) -> None:
    """Refuse rows whose values are not of the kind that was found in a sample of the matrix.

    Raises:
        UserError: a negative value, one that no gene reaches, or a fraction among counts.
    """
    values = block.data
    whole = expression.content == "counts"
    wrong = (values < 0) | (values > seen.EXACT)
    broken = values[wrong | (values != np.round(values))] if whole else values[wrong]
    if len(broken):
        among = "raw counts" if whole else "log values"
        raise UserError(
            f"{expression.matrix} of {file} holds {broken[0]:.4g} among {among}. Name a matrix of raw "
            "counts with data.counts=LAYER."
        )


def find_flaw(atlas: Atlas, matrix: str) -> str | None:
    """Why a matrix cannot hold raw counts; None where it can."""
    return seen.sample(atlas, matrix).flaw


def stored_elsewhere(atlas: Atlas, expression: Expression, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
    """A matrix that holds values of nuclei of which the chosen one holds none, and which of `rows` they are.

    Only matrices of no more genes are asked, which may be counts or logarithms: a scaled one holds values of
    empty nuclei too.
    """
    n_genes = atlas.shape(expression.matrix)[1]
    for matrix in atlas.matrices:
        if matrix == expression.matrix or not (matrix in ("X", "raw/X") or _rank(matrix) is not None):
            continue
        if atlas.shape(matrix)[1] > n_genes:
            continue
        held, scaled = [], False
        for block in atlas.rows(matrix, rows):
            held.append(np.diff(block.indptr) > 0)
            scaled = scaled or bool((block.data < 0).any())
        found = np.concatenate(held)
        if found.any() and not scaled:
            return matrix, found
    return None


def _named(atlas: Atlas, wanted: str) -> str:
    matrix = {"X": "X", "raw": "raw/X"}.get(wanted, f"layers/{wanted}")
    if matrix not in atlas.matrices:
        layers = [name.removeprefix("layers/") for name in atlas.matrices]
        raise UserError(
            f"data.counts={wanted}: {atlas.path.name} has no such matrix.{nearest(wanted, layers)} "
            f"It has {listing(layers)}."
        )
    return matrix


def _only_elsewhere(chosen: Sampled, other: Sampled) -> int:
    """Of how many nuclei only the other matrix holds values, which has no more genes and is not scaled."""
    if other.rows.shape[1] > chosen.rows.shape[1] or (other.rows.data < 0).any():
        return 0
    return int(((np.diff(chosen.rows.indptr) == 0) & (np.diff(other.rows.indptr) > 0)).sum())


def _alike(one: Sampled, other: Sampled) -> bool:
    return seen.are_same(one.rows, other.rows)


def _plain(matrix: str) -> str:
    return matrix.removeprefix("layers/").casefold()


def _rank(matrix: str) -> int | None:
    """The place of a layer among those whose names mean counts; None for other matrices."""
    word = _plain(matrix)
    return USUAL_NAMES.index(word) if matrix.startswith("layers/") and word in USUAL_NAMES else None


def counts_word(matrix: str) -> str:
    """How data.counts names a matrix."""
    return {"X": "X", "raw/X": "raw"}.get(matrix, matrix.removeprefix("layers/"))
