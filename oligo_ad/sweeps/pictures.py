"""Pictures and sentences of a grid: all choices side by side, and more training donors."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from oligo_ad.results.plots import GREY, POSITIVE

FRACTION = "split.train_fraction"
FEWEST = 6  # finished runs, below which there is nothing to see in all choices together


def choices(done: pd.DataFrame, settings: list[str], names: list[str]) -> Figure:
    """A specification curve (Simonsohn, Simmons & Nelson 2020, Nat. Hum. Behav. 4:1208).

    Above, every run with its interval, and its comparator, the worst first; below, a dot at its settings.

    Args:
        done: finished runs, a row each.
        settings: columns that differ; `names`: how they are shown.
    """
    table = done.sort_values("donor AUROC", kind="stable").reset_index(drop=True)
    levels = [(name, sorted(table[name].unique(), key=_as_number)) for name in settings]
    rows = sum(len(own) for _, own in levels)
    figure = Figure(
        figsize=(max(6.4, 2.2 + 0.22 * len(table)), 2.6 + 0.2 * (rows + len(levels))), layout="constrained"
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 0.2 * (rows + len(levels))])
    place, auroc = np.arange(len(table)), table["donor AUROC"].to_numpy()
    above.vlines(place, table["low"], table["high"], color=GREY, lw=1)
    above.plot(place, auroc, "o", color=POSITIVE, ms=4, label="donor AUROC")
    if "comparator AUROC" in table:
        above.plot(place, table["comparator AUROC"], "_", color="black", ms=6, label="comparator")
    above.axhline(0.5, color=GREY, lw=0.8, ls="--")
    above.set(ylabel="donor AUROC", ylim=(0, 1.02))
    above.legend(fontsize=8, frameon=False, loc="lower right", ncols=2)
    ticks: list[tuple[int, str]] = []
    height = 0
    for (name, own), shown in zip(levels, names, strict=True):
        for level in own:
            below.plot(place, np.where(table[name] == level, -height, np.nan), "s", color="black", ms=3)
            ticks.append((-height, f"{shown} = {level or 'default'}"))
            height += 1
        height += 1  # a gap between settings
    below.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks], fontsize=8)
    below.set_xticks([])
    below.set(ylim=(-height + 1.2, 0.8), xlabel=f"{len(table)} runs, by their donor AUROC")
    return figure


def of_choices(done: pd.DataFrame) -> str:
    """How far the result depends on the choices, without naming the best."""
    auroc = done["donor AUROC"]
    text = (
        f"Over {len(done)} defensible choices the donor AUROC lies between {auroc.min():.3f} and "
        f"{auroc.max():.3f}, median {auroc.median():.3f}"
    )
    gain = done.get("to the comparator", pd.Series(dtype=float)).dropna()
    if gain.empty:
        return f"{text}."
    return f"{text}; the difference to the comparator is above 0 in {int((gain > 0).sum())} of {len(gain)}."


def learning_curve(done: pd.DataFrame) -> Figure:
    """Donor AUROC, and that of the comparator, by the number of training donors of a fold."""
    table = done.sort_values("training donors", kind="stable")
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    auroc, donors = table["donor AUROC"], table["training donors"]
    spread = [auroc - table["low"], table["high"] - auroc]
    axes.errorbar(donors, auroc, spread, fmt="o-", color=POSITIVE, capsize=3, label="donor AUROC")
    if "comparator AUROC" in table:
        axes.plot(donors, table["comparator AUROC"], "s--", color="black", ms=4, label="comparator")
    axes.axhline(0.5, color=GREY, lw=0.8, ls="--")
    axes.set(xlabel="donors that a fold is trained on", ylabel="donor AUROC", ylim=(0, 1.02))
    axes.legend(fontsize=8, frameon=False)
    return figure


def _as_number(value: str) -> tuple[int, float, str]:
    """Numbers by their size, then words."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value
