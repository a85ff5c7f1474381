"""Pictures and sentences of a grid: all choices side by side, and more training donors."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from oligo_ad.results.plots import COLOURS, GREY, POSITIVE
from oligo_ad.sweeps.comparison import OUTER
from oligo_ad.sweeps.remarks import DEFAULT_FRACTION, FRACTION, SEED

MOST_LINES = len(COLOURS)
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


def of_choices(done: pd.DataFrame, settings: list[str]) -> str:
    """How far the result depends on the choices of `settings`, without naming the best."""
    auroc, n_choices = done["donor AUROC"], len(done[settings].drop_duplicates())
    runs = "" if n_choices == len(done) else f" ({len(done)} runs)"
    text = (
        f"Over {n_choices} defensible choices{runs} the donor AUROC lies between {auroc.min():.3f} and "
        f"{auroc.max():.3f}, median {auroc.median():.3f}"
    )
    gain = done.get("to the comparator", pd.Series(dtype=float)).dropna()
    if gain.empty:
        return f"{text}."
    comparators = done["comparator"].dropna().unique()
    name = comparators[0] if len(comparators) == 1 else "the comparator"
    return f"{text}; the difference to {name} is above 0 in {int((gain > 0).sum())} of {len(gain)}."


def learning_curve(done: pd.DataFrame, settings: list[str], names: list[str]) -> Figure:
    """Donor AUROC, and that of the comparator, by the number of training donors of a fold.

    A line for each combination of the other settings; seeds are averaged, and so are their intervals.

    Args:
        done: finished runs, a row each.
        settings: the other columns that differ; `names`: how they are shown.
    """
    columns = ["training donors", "donor AUROC", "low", "high", "comparator AUROC"]
    others = [name for name in settings if name not in (FRACTION, SEED, OUTER)]
    shown = dict(zip(settings, names, strict=True))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    groups = [*done.groupby(others, sort=False)] if others else [((), done)]
    step = (
        0.008 * float(np.ptp(done["training donors"].dropna()))
        if done["training donors"].notna().any()
        else 0
    )
    for place, (values, own) in enumerate(groups[:MOST_LINES]):
        share = pd.to_numeric(own[FRACTION].replace("", DEFAULT_FRACTION), errors="coerce")
        line = own.groupby(share)[columns].mean()
        label = ", ".join(
            f"{shown[name]} {value or 'default'}" for name, value in zip(others, values, strict=True)
        )
        auroc, donors = line["donor AUROC"], line["training donors"] + place * step
        colour = POSITIVE if len(groups) == 1 else COLOURS[place]
        spread = [auroc - line["low"], line["high"] - auroc]
        axes.errorbar(
            donors, auroc, spread, fmt="o-", color=colour, ms=4, capsize=3, label=label or "donor AUROC"
        )
        axes.plot(donors, line["comparator AUROC"], "s--", color=colour if label else "black", ms=3, lw=1)
    axes.plot([], [], "s--", color="black", ms=3, lw=1, label="comparator")
    axes.axhline(0.5, color=GREY, lw=0.8, ls="--")
    axes.set(xlabel="donors that a fold is trained on", ylabel="donor AUROC", ylim=(0, 1.02))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _as_number(value: str) -> tuple[int, float, str]:
    """Numbers by their size, then words."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value
