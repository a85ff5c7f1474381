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
    """Donors of one level: `n` negative and positive ones; `auroc` over the folds that tested both classes,
    None, like its interval, where they are too few."""

    column: str
    level: str
    n: tuple[int, int]
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
        value = "too few donors" if one.auroc is None else f"{one.auroc:.3f}"
        spread = f"{one.interval.low:.3f} to {one.interval.high:.3f}" if one.interval else ""
        counts = {f"{name} donors": n for name, n in zip(classes, one.n, strict=True)}
        rows.append(
            {"column": one.column, "level": one.level} | counts | {"AUROC": value, "95 % interval": spread}
        )
    return pd.DataFrame(rows)


def _scored(column: str, level: str, part: pd.DataFrame, trained: float) -> Subgroup:
    of_class = part.drop_duplicates("donor")["label"]
    n = (int((of_class == 0).sum()), int((of_class == 1).sum()))
    both = part.groupby("fold")["label"].transform("nunique") > 1
    if min(n) < FEWEST or not both.any():
        return Subgroup(column, level, n, None, None)
    rows = part[both]
    spread = intervals.auroc(held_out(rows, trained), rows[MODEL].to_numpy())
    return Subgroup(column, level, n, mean_auroc(rows, MODEL), spread)
