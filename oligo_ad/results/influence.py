"""Which donor decides: the headline without each donor."""

import numpy as np
import pandas as pd


def influence(table: pd.DataFrame, column: str) -> pd.Series:
    """Donor AUROC, mean over folds, without each donor in turn; a fold that loses a class drops out.

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


def influence_table(table: pd.DataFrame, column: str, headline: float) -> pd.DataFrame:
    """The donors, the most influential first: label, nuclei, score, without, change."""
    own = table.groupby("donor").agg(
        label=("label", "first"), nuclei=("nuclei", "first"), score=(column, "mean")
    )
    own["without"] = influence(table, column)
    own["change"] = own["without"] - headline
    order = own["change"].abs().sort_values(ascending=False, kind="stable").index
    return own.loc[order]


def sentence(found: pd.DataFrame, headline: float) -> str:
    """How much one donor moves the headline."""
    change = found["change"].dropna()
    if change.empty:
        return "Without any one donor no fold has both classes."
    first, *rest = change.index
    others = f"; no other moves it by more than {change[rest].abs().max():.3f}" if rest else ""
    return (
        f"Without {first} the donor AUROC would be {found['without'][first]:.3f} instead of {headline:.3f}"
        f"{others}. Leaving out any one donor it lies between {found['without'].min():.3f} and "
        f"{found['without'].max():.3f}."
    )
