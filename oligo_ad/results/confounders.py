"""Confounders: does one differ between the classes, and does the model's score follow it within a class?

What does both may carry the result in the place of disease. What tells the classes apart completely cannot
be judged: no result can be told from it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu, rankdata, spearmanr
from sklearn.metrics import roc_auc_score

from oligo_ad.results import intervals
from oligo_ad.results.evaluation import MODEL, Evaluation
from oligo_ad.results.intervals import HeldOut, Interval

ALPHA = 0.05
FEWEST = 5  # donors of a class, for a correlation among them
EXACT = 7  # donors up to which all their orders are tried: the t approximation has too small a p there
ROUNDING = 1e-9


@dataclass(frozen=True)
class Correlation:
    """Spearman's, among `n` donors of one class, with its two-sided p; NaN where they are too few, or all
    have one value."""

    n: int
    rho: float
    p: float


@dataclass(frozen=True)
class Confounder:
    """One column, compared with the label and with the model's score.

    `known`: donors of whom it is known. `auroc`: of the column as a score of the positive class, with the
    interval of a score that nobody trained; above one half it is larger in that class; NaN where it is known
    in one class only. `p`: two-sided, by Mann and Whitney, after Holm 1979 for all columns. `within`:
    correlation with the model's held-out score among negative and among positive donors. `separates`: whether
    it tells the classes apart completely, alone or with the other levels of its column. `is_input`: whether
    the model is given it.
    """

    name: str
    known: int
    auroc: float
    interval: Interval | None
    p: float
    within: tuple[Correlation, Correlation]
    separates: bool
    is_input: bool

    @property
    def differs(self) -> bool:
        return self.p <= ALPHA

    @property
    def is_followed(self) -> bool:
        """Whether the model's score goes with it within a class; not corrected for the number of columns."""
        return any(own.p <= ALPHA for own in self.within)

    @property
    def strongest(self) -> float:
        """The correlation within a class that chance explains least."""
        return min(self.within, key=lambda own: np.inf if np.isnan(own.p) else own.p).rho


def confounders_of(
    evaluation: Evaluation,
    columns: pd.DataFrame,
    label: pd.Series | None = None,
    inputs: Collection[str] = (),
) -> list[Confounder]:
    """Every column compared with label and score, the most different first.

    Args:
        evaluation: with the held-out scores of donors.
        columns: numbers by donor id, NaN where unknown.
        label: of every donor that is compared, those that no fold tested too; of the tested ones where None.
        inputs: names of columns that the model is given.
    """
    own = evaluation.donor_table.groupby("donor").agg(label=("label", "first"), score=(MODEL, "mean"))
    if label is not None:
        own = own.reindex(label.index.sort_values()).assign(label=label)
    values = columns.reindex(own.index)
    raw = {str(name): _p(own["label"], values[name]) for name in values}
    adjusted = holm(raw)
    complete = separating(own["label"], values)
    found = [
        _compared(str(name), own, values[name], adjusted[str(name)], name in complete, name in inputs)
        for name in values
    ]
    return sorted(found, key=lambda one: (one.known == 0, -1.0 if one.separates else -abs(one.auroc - 0.5)))


def sentence(found: list[Confounder]) -> str:
    """What the table shows, in short."""
    used = [one for one in found if one.known]
    differ = [one.name for one in used if one.differs]
    followed = [f"{one.name}, rho {one.strongest:+.2f}" for one in used if one.is_followed]
    both = [one.name for one in used if one.differs and one.is_followed]
    complete = [one.name for one in used if one.separates]
    tried = sum(not np.isnan(own.p) for one in used for own in one.within)
    text = f"Of {len(used)} columns, {len(differ)} differ between the classes"
    text += f" ({', '.join(differ)})" if differ else ""
    text += f"; the model's score follows {len(followed)} of them within a class"
    text += f" ({'; '.join(followed)})" if followed else ""
    text += f"; chance alone makes {ALPHA * tried:.1f} of {tried} correlations as strong." if tried else "."
    if complete:
        text += f" No result can be told from {', '.join(complete)}: the classes share no value."
    if both:
        return f"{text} Both holds of {', '.join(both)}: it may carry part of the result."
    others = " of the others" if complete else ""
    return f"{text} Both holds of none{others}; with few donors a confounder can be missed."


def table(found: list[Confounder], classes: tuple[str, str]) -> pd.DataFrame:
    """As text; classes: names of the negative and the positive one."""
    rows = {one.name: _row(one, classes) for one in found}
    return pd.DataFrame(rows).T


def separating(label: pd.Series, columns: pd.DataFrame) -> set[str]:
    """Columns that tell the classes apart completely.

    These are columns that are larger in every donor of one class, or known in one class only, and all levels
    of a column if each is of one class and every donor has one.

    Args:
        label: 0 or 1 by donor id.
        columns: numbers of these donors; those of levels are called `COLUMN=LEVEL`.
    """
    found = set()
    for name in columns:
        parts = [columns[name][label == value].dropna() for value in (0, 1)]
        if sum(len(part) > 0 for part in parts) == 1 or any(
            a.max() < b.min() for a, b in (parts, parts[::-1])
        ):
            found.add(str(name))
    levels = [name for name in columns if "=" in str(name)]
    for _, own in columns[levels].T.groupby(lambda name: str(name).partition("=")[0]):
        there = own.T > 0
        pure = there.apply(lambda level: label[level].nunique() == 1)
        if len(pure) > 1 and pure.all() and there.any(axis=1).eq(own.T.notna().any(axis=1)).all():
            found |= {str(name) for name in pure.index}
    return found


def holm(p: dict[str, float]) -> dict[str, float]:
    """p values after Holm 1979 (Scand. J. Statist. 6:65), NaN where there was none."""
    known = sorted((value, name) for name, value in p.items() if not np.isnan(value))
    adjusted, largest = dict.fromkeys(p, float("nan")), 0.0
    for place, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - place)))
        adjusted[name] = largest
    return adjusted


def _p(label: pd.Series, values: pd.Series) -> float:
    parts = [values[(label == value) & values.notna()] for value in (1, 0)]
    if min(len(part) for part in parts) == 0:
        return float("nan")
    return float(mannwhitneyu(*parts).pvalue)


def _compared(
    name: str, own: pd.DataFrame, values: pd.Series, p: float, separates: bool, is_input: bool
) -> Confounder:
    known = values.notna()
    own, given = own[known], values[known].to_numpy()
    label = own["label"].to_numpy()
    negative, positive = (label == value for value in (0, 1))
    score = own["score"].to_numpy()
    tested = np.isfinite(score)
    on_negative, on_positive = (
        _correlation(score[of & tested], given[of & tested]) for of in (negative, positive)
    )
    auroc, spread = float("nan"), None
    if negative.any() and positive.any():
        auroc = float(roc_auc_score(label, given))
        rows = HeldOut(np.zeros(len(label)), own.index.to_numpy(), label, np.inf)
        spread = intervals.auroc(rows, given)
    return Confounder(name, len(label), auroc, spread, p, (on_negative, on_positive), separates, is_input)


def _correlation(score: np.ndarray, values: np.ndarray) -> Correlation:
    if len(score) < FEWEST or np.ptp(score) == 0 or np.ptp(values) == 0:
        return Correlation(len(score), float("nan"), float("nan"))
    rho, p = spearmanr(score, values)
    return Correlation(len(score), float(rho), _exact(score, values) if len(score) <= EXACT else float(p))


def _exact(score: np.ndarray, values: np.ndarray) -> float:
    """The share of all orders of the donors whose rank correlation is as strong."""
    own, other = (rankdata(part) - (len(part) + 1) / 2 for part in (score, values))
    strength = np.abs(own[np.array(list(permutations(range(len(own)))))] @ other)
    return float((strength >= abs(own @ other) - ROUNDING).mean())


def _row(one: Confounder, classes: tuple[str, str]) -> dict[str, str]:
    row = {
        "donors": str(one.known),
        "AUROC against the label": "nearly one level per donor: cannot be told from the donor",
        "larger in": "",
        "p (Holm)": "",
    }
    if one.known:
        row["AUROC against the label"] = "known in one class only"
    if one.interval:
        row["AUROC against the label"] = (
            f"{one.auroc:.2f} ({one.interval.low:.2f} to {one.interval.high:.2f})"
        )
        row["larger in"] = classes[int(one.auroc > 0.5)] if one.auroc != 0.5 else "neither"
        row["p (Holm)"] = f"{one.p:.3f}"
    for name, own in zip(classes, one.within, strict=True):
        known = f"{own.rho:+.2f} (p {own.p:.3f}, n {own.n})" if not np.isnan(own.rho) else f"(n {own.n})"
        row[f"rho with the score, {name}"] = known if one.known else ""
    return row | {"in words": ", ".join(_words(one))}


def _words(one: Confounder) -> Iterator[str]:
    if one.separates:
        yield "cannot be told from the label"
    elif one.differs and one.is_followed:
        yield "differs, and is followed"
    if one.is_input:
        yield "the model is given it"
