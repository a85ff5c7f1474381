"""Confounders: does one differ between the classes, and does the model's score follow it within a class?

What does both may carry the result in the place of disease.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu, spearmanr

from oligo_ad.results import intervals
from oligo_ad.results.evaluation import MODEL, Evaluation
from oligo_ad.results.intervals import HeldOut, Interval

ALPHA = 0.05
FEWEST = 5  # donors of a class, for a correlation among them


class Correlation(NamedTuple):
    """Spearman's, among `n` donors of one class, p by the t approximation; NaN where they are too few."""

    n: int
    rho: float
    p: float


@dataclass(frozen=True)
class Confounder:
    """One column, compared with the label and with the model's score.

    `known`: donors of whom it is known. `auroc`: of the column as a score of the positive class, with the
    interval of a score that nobody trained; above one half it is larger in that class. `p`: two-sided, by
    Mann and Whitney, after Holm 1979 for all columns. `within`: correlation with the model's held-out score
    among negative and among positive donors.
    """

    name: str
    known: int
    auroc: float
    interval: Interval | None
    p: float
    within: tuple[Correlation, Correlation]

    @property
    def differs(self) -> bool:
        return self.p <= ALPHA

    @property
    def is_followed(self) -> bool:
        """Whether the model's score goes with it within a class; not corrected for the number of columns."""
        return any(own.p <= ALPHA for own in self.within)


def confounders_of(evaluation: Evaluation, columns: pd.DataFrame) -> list[Confounder]:
    """Every column compared with label and score, the most different first.

    Args:
        evaluation: with the held-out scores of donors.
        columns: numbers by donor id, NaN where unknown.
    """
    own = evaluation.donor_table.groupby("donor").agg(label=("label", "first"), score=(MODEL, "mean"))
    values = columns.reindex(own.index)
    raw = {str(name): _p(own["label"], values[name]) for name in values}
    adjusted = holm(raw)
    found = [_compared(str(name), own, values[name], adjusted[str(name)]) for name in values]
    return sorted(found, key=lambda one: -abs(one.auroc - 0.5) if one.known else 1.0)


def sentence(found: list[Confounder]) -> str:
    """What the table shows, in short."""
    used = [one for one in found if one.known]
    differ = [one.name for one in used if one.differs]
    both = [one.name for one in used if one.differs and one.is_followed]
    followed = [one.name for one in used if one.is_followed]
    text = f"Of {len(used)} columns, {len(differ)} differ between the classes"
    text += f" ({', '.join(differ)})" if differ else ""
    text += f"; the model's score follows {len(followed)} of them within a class"
    text += f" ({', '.join(followed)})" if followed else ""
    if both:
        return f"{text}. Both holds of {', '.join(both)}: it may carry part of the result."
    return f"{text}. Both holds of none; with few donors a confounder can be missed."


def table(found: list[Confounder], classes: tuple[str, str]) -> pd.DataFrame:
    """As text; classes: names of the negative and the positive one."""
    rows = {one.name: _row(one, classes) for one in found}
    return pd.DataFrame(rows).T


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


def _compared(name: str, own: pd.DataFrame, values: pd.Series, p: float) -> Confounder:
    known = values.notna().to_numpy()
    label, given = own["label"].to_numpy()[known], values.to_numpy()[known]
    score = own["score"].to_numpy()[known]
    negative, positive = (label == value for value in (0, 1))
    within = tuple(_correlation(score[of], given[of]) for of in (negative, positive))
    if not (negative.any() and positive.any()):
        return Confounder(name, len(label), float("nan"), None, p, (within[0], within[1]))
    larger = given[positive][:, None] > given[negative]
    equal = given[positive][:, None] == given[negative]
    rows = HeldOut(np.zeros(len(label)), own.index.to_numpy()[known], label, np.inf)
    spread = intervals.auroc(rows, given)
    return Confounder(
        name, len(label), float(larger.mean() + equal.mean() / 2), spread, p, (within[0], within[1])
    )


def _correlation(score: np.ndarray, values: np.ndarray) -> Correlation:
    if len(score) < FEWEST or np.ptp(score) == 0 or np.ptp(values) == 0:
        return Correlation(len(score), float("nan"), float("nan"))
    rho, p = spearmanr(score, values)
    return Correlation(len(score), float(rho), float(p))


def _row(one: Confounder, classes: tuple[str, str]) -> dict[str, str]:
    if not one.known:
        return {"donors": "0", "AUROC against the label": "unknown, or another value for nearly every donor"}
    interval = f" ({one.interval.low:.2f} to {one.interval.high:.2f})" if one.interval else ""
    row = {
        "donors": str(one.known),
        "AUROC against the label": f"{one.auroc:.2f}{interval}",
        "p (Holm)": f"{one.p:.3f}",
    }
    for name, own in zip(classes, one.within, strict=True):
        known = f"{own.rho:+.2f} (p {own.p:.2f}, n {own.n})" if not np.isnan(own.rho) else f"(n {own.n})"
        row[f"rho with the score, {name}"] = known
    return row | {"": "differs, and is followed" if one.differs and one.is_followed else ""}
