"""The headline in each level of a donor column."""

from dataclasses import dataclass

import pandas as pd

from oligo_ad.results import intervals
from oligo_ad.results.evaluation import MODEL, Evaluation
from oligo_ad.results.intervals import Interval
from oligo_ad.results.metrics import held_out, mean_auroc

FEWEST = 3  # donors of a class, below which a subgroup has no score


@dataclass(frozen=True)
class Subgroup:
    """Donors of one level: `n` negative and positive ones, `compared` of them with one of the other class, in
    a fold that tested both; `auroc` over these folds, None, like its interval, where they are too few."""

    column: str
    level: str
    n: tuple[int, int]
    compared: tuple[int, int]
    auroc: float | None
    interval: Interval | None


def subgroups_of(evaluation: Evaluation, levels: dict[str, dict[str, str | None]]) -> list[Subgroup]:
    """Each level of each column; donors of unknown level are one of their own.

    Args:
        levels: by column and donor id, None where unknown.
    """
    table, found = evaluation.donor_table, []
    for column, of_donor in levels.items():
        own = table["donor"].map(of_donor).fillna("unknown")
        found += [_scored(column, str(level), part, evaluation.trained) for level, part in table.groupby(own)]
    return found


def table(found: list[Subgroup], classes: tuple[str, str]) -> pd.DataFrame:
    """As text; classes: names of the negative and the positive one."""
    rows = []
    for one in found:
        value = _why_not(one, classes) if one.auroc is None else f"{one.auroc:.3f}"
        spread = f"{one.interval.low:.3f} to {one.interval.high:.3f}" if one.interval else ""
        counts = {
            f"{name} donors": str(n) if met == n else f"{n} ({met} compared)"
            for name, n, met in zip(classes, one.n, one.compared, strict=True)
        }
        rows.append(
            {"column": one.column, "level": one.level} | counts | {"AUROC": value, "95 % interval": spread}
        )
    return pd.DataFrame(rows)


def _why_not(one: Subgroup, classes: tuple[str, str]) -> str:
    missing = [name for name, n in zip(classes, one.n, strict=True) if n == 0]
    return f"no {' and no '.join(missing)} donor" if missing else "too few donors"


def _scored(column: str, level: str, part: pd.DataFrame, trained: float) -> Subgroup:
    rows = part[part.groupby("fold")["label"].transform("nunique") > 1]
    n, compared = _donors(part), _donors(rows)
    if min(compared) < FEWEST:
        return Subgroup(column, level, n, compared, None, None)
    spread = intervals.auroc(held_out(rows, trained), rows[MODEL].to_numpy())
    return Subgroup(column, level, n, compared, mean_auroc(rows, MODEL), spread)


def _donors(rows: pd.DataFrame) -> tuple[int, int]:
    """Of each class, the negative one first."""
    label = rows.drop_duplicates("donor")["label"]
    return int((label == 0).sum()), int((label == 1).sum())
