"""Which donor decides: the headline, and the gain over the comparator, without each donor."""

import numpy as np
import pandas as pd


def influence(table: pd.DataFrame, column: str) -> pd.Series:
    """Donor AUROC, mean over folds, without each donor in turn; a fold that loses a class drops out.

    The model stays as it was trained: a donor is left out of the tested ones only. A donor's pairs in a fold
    are taken from the sums of all of its pairs, so no AUROC is computed anew.

    Args:
        table: a row for each fold and donor: fold, donor, label, and `column`, the scores.

    Returns:
        By donor id; NaN where no fold is left.
    """
    donors = np.unique(table["donor"])
    kept = np.full((table["fold"].nunique(), len(donors)), np.nan)
    for number, (_, fold) in enumerate(table.groupby("fold")):
        label, score = fold["label"].to_numpy(), fold[column].to_numpy()
        positive, negative = score[label == 1], score[label == 0]
        wins = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
        place = np.searchsorted(donors, fold["donor"])
        kept[number] = wins.mean() if wins.size else np.nan
        for value, axis in ((1, 1), (0, 0)):  # wins of each positive donor, of each negative one
            own = wins.sum(axis=axis)
            pairs = (len(own) - 1) * wins.shape[axis]
            left = (wins.sum() - own) / pairs if pairs else np.full(len(own), np.nan)
            kept[number, place[label == value]] = left
    known = ~np.isnan(kept)
    total = np.where(known, kept, 0).sum(0)
    values = np.divide(total, known.sum(0), out=np.full(len(donors), np.nan), where=known.any(0))
    return pd.Series(values, pd.Index(donors, name="donor"))


def influence_table(
    table: pd.DataFrame, column: str, headline: float, other: str | None = None, gain: float = np.nan
) -> pd.DataFrame:
    """The donors, the most influential first.

    Args:
        table: as of `influence`, with nuclei, and with the scores of `other`.
        headline: with all donors.
        other: the comparator; None where there is none.
        gain: of `column` over it, with all donors.

    Returns:
        By donor id: label, nuclei, score (mean over folds), without (the headline without this donor),
        change; with a comparator gain_without and gain_change.
    """
    own = table.groupby("donor").agg(
        label=("label", "first"), nuclei=("nuclei", "first"), score=(column, "mean")
    )
    own["without"] = influence(table, column)
    own["change"] = own["without"] - headline
    if other:
        own["gain_without"] = own["without"] - influence(table, other)
        own["gain_change"] = own["gain_without"] - gain
    order = own["change"].abs().sort_values(ascending=False, kind="stable").index
    return own.loc[order]


def sentence(found: pd.DataFrame, headline: float, other: str | None = None, gain: float = np.nan) -> str:
    """How much one donor moves the headline, and the gain; arguments as of `influence_table`."""
    change = found["change"].dropna()
    if change.empty:
        return "Without any one donor no fold has both classes."
    first, *rest = change.index
    others = f"; no other moves it by more than {change[rest].abs().max():.3f}" if rest else ""
    return (
        f"Without {first} the donor AUROC would be {found['without'][first]:.3f} instead of {headline:.3f}"
        f"{others}. Leaving out any one donor it lies between {found['without'].min():.3f} and "
        f"{found['without'].max():.3f}{_of_gain(found, other, gain) if other else ''}."
    )


def _of_gain(found: pd.DataFrame, other: str | None, gain: float) -> str:
    low, high = found["gain_without"].min(), found["gain_without"].max()
    decisive = found["gain_change"].abs().idxmax()
    return (
        f"; the gain over {other}, {gain:+.3f}, between {low:+.3f} and {high:+.3f}, moved most by {decisive}"
    )


def shown(found: pd.DataFrame, classes: tuple[str, str]) -> pd.DataFrame:
    """The table as text."""
    table = {
        "donor": found.index,
        "class": [classes[label] for label in found["label"]],
        "nuclei": [f"{n:,}" for n in found["nuclei"]],
        "score": found["score"].map("{:.3f}".format).to_numpy(),
        "AUROC without": _numbers(found["without"], ""),
        "change": _numbers(found["change"], "+"),
    }
    if "gain_without" in found:
        table["gain without"] = _numbers(found["gain_without"], "+")
    return pd.DataFrame(table)


def _numbers(values: pd.Series, sign: str) -> list[str]:
    return ["no fold is left" if np.isnan(value) else f"{value:{sign}.3f}" for value in values]
