"""The pictures of a run. Each function draws one figure from plain arrays or tables."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from oligo_ad.facts import Epoch
from oligo_ad.results import calibration
from oligo_ad.results.calibration import Calibrated
from oligo_ad.results.evaluation import MODEL, ORACLE, Evaluation

matplotlib.rcdefaults()  # not those of a matplotlibrc that lies in the current directory
matplotlib.rcParams.update(
    {
        "text.parse_math": False,  # a `$` in a name is a `$`
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "oligo_ad",  # names inside a picture are the same each time it is drawn
    }
)
# Okabe & Ito's palette, readable without red-green vision.
NEGATIVE, POSITIVE, GREY = "#0072B2", "#D55E00", "#999999"
COLOURS = [
    "#000000", "#999999", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2",
    "#D55E00", "#F0E442", "#7F3C8D",
]  # fmt: skip


def donor_scores(evaluation: Evaluation, names: tuple[str, str]) -> Figure:
    """Each donor a dot at its score, by class; its size shows its nuclei, the line the threshold."""
    table = evaluation.donor_table
    own = table.groupby("donor").agg(
        label=("label", "first"), nuclei=("nuclei", "first"), score=(MODEL, "mean"), cut=("threshold", "mean")
    )
    figure = Figure(figsize=(6.4, 3.0))
    axes = figure.subplots()
    rng = np.random.default_rng(0)  # of the vertical jitter only
    for value, colour, name in zip((0, 1), (NEGATIVE, POSITIVE), names, strict=True):
        part = own[own["label"] == value]
        size = 20 + 130 * np.sqrt(part["nuclei"] / own["nuclei"].max())
        height = value + rng.uniform(-0.28, 0.28, len(part))
        axes.scatter(part["score"], height, s=size, c=colour, alpha=0.7, edgecolors="white", label=name)
        axes.plot([part["score"].median()] * 2, [value - 0.36, value + 0.36], color=colour, lw=2)
    axes.axvline(own["cut"].mean(), color=GREY, ls="--", lw=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, 1.6), xlabel="donor score (held out)")
    labels = [f"{name}\n{int((own['label'] == v).sum())} donors" for v, name in enumerate(names)]
    axes.set_yticks([0, 1], labels)
    axes.grid(axis="y", visible=False)
    return figure


def curves(evaluation: Evaluation, names: tuple[str, str]) -> Figure:
    """ROC and precision-recall of donors, for the model, the baselines and the oracle (pooled)."""
    figure = Figure(figsize=(8.6, 4.0))
    roc, pr = figure.subplots(1, 2)
    table = evaluation.donor_table
    label = table["label"].to_numpy()
    rare = int(label.mean() < 0.5)
    for name, colour in zip(evaluation.predictors, COLOURS, strict=False):
        style = {"color": colour, "lw": 2.2 if name == MODEL else 1.3, "ls": ":" if name == ORACLE else "-"}
        false_rate, true_rate, _ = sk.roc_curve(label, table[name])
        area = evaluation.donors[name].pooled
        roc.plot(false_rate, true_rate, label=f"{name} {area['auroc']:.2f}", **style)
        sign = 1 if rare else -1
        precision, recall, _ = sk.precision_recall_curve(label == rare, sign * table[name])
        pr.plot(recall, precision, label=f"{name} {area['auprc_minority']:.2f}", **style)
    roc.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="donors: ROC")
    pr.axhline((label == rare).mean(), color=GREY, lw=0.8, ls="--")
    pr.set(
        xlabel="recall",
        ylabel="precision",
        title=f"donors: precision-recall of {names[rare]}",
        ylim=(0, 1.03),
    )
    for axes in (roc, pr):
        axes.legend(fontsize=8, frameon=False, loc="best")
    return figure


def learning_curves(
    histories: Sequence[Sequence[Epoch]], best: Sequence[int], of_nuclei: bool = True
) -> Figure:
    """Loss on training and validation donors, and validation AUROC, by epoch; dots mark the epoch kept.

    `of_nuclei`: whether nuclei are predicted, so that they have an AUROC of their own.
    """
    nuclei = (("validation nuclei", NEGATIVE),) if of_nuclei else ()
    figure = Figure(figsize=(8.6, 3.4))
    loss, auroc = figure.subplots(1, 2)
    for history, kept in zip(histories, best, strict=True):
        frame = pd.DataFrame([vars(epoch) for epoch in history]).set_index("epoch")
        thin = {"lw": 1.5 if len(histories) == 1 else 0.9, "alpha": 0.9}
        loss.plot(frame.index, frame["train_loss"], color=GREY, **thin)
        loss.plot(frame.index, frame["loss"], color=POSITIVE, **thin)
        loss.plot(kept, frame["loss"][kept], "o", color=POSITIVE, ms=5)
        if of_nuclei:
            auroc.plot(frame.index, frame["cell_auroc"], color=NEGATIVE, **thin)
        auroc.plot(frame.index, frame["donor_auroc"], color=POSITIVE, **thin)
    for axes, entries in (
        (loss, (("training", GREY), ("validation", POSITIVE))),
        (auroc, (*nuclei, ("validation donors", POSITIVE))),
    ):
        for name, colour in entries:
            axes.plot([], [], color=colour, label=name)
        axes.legend(fontsize=8, frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    loss.set(xlabel="epoch", title="loss")
    auroc.set(xlabel="epoch", title="AUROC", ylim=(0, 1.03))
    return figure


def reliability(evaluation: Evaluation, calibrated: Calibrated) -> Figure:
    """Observed share of the positive class against the predicted probability: donors, and nuclei.

    Donors in few bins of equal numbers, with intervals; the numbers beside the dots are donors.
    """
    figure = Figure(figsize=(8.2 if evaluation.cells else 4.2, 4.0))
    panels = figure.subplots(1, 2 if evaluation.cells else 1, squeeze=False)[0]
    table = calibration.reliability(calibrated.donors, "probability")
    below, above = table["observed"] - table["low"], table["high"] - table["observed"]
    panels[0].errorbar(
        table["predicted"], table["observed"], [below, above], fmt="o", color=POSITIVE, capsize=3
    )
    for row in table.itertuples():
        panels[0].annotate(f" {row.donors}", (row.predicted, row.observed), fontsize=8, va="bottom")
    if evaluation.cells:
        label, probability = evaluation.cell_table["label"], evaluation.cell_table[MODEL]
        observed, predicted = calibration_curve(label, probability, n_bins=10, strategy="quantile")
        panels[1].plot(predicted, observed, "o-", color=POSITIVE)
    for axes, what in zip(
        panels, ("donors, at the cohort's prevalence", "nuclei, as predicted"), strict=False
    ):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        axes.set(xlabel="predicted probability", ylabel="observed share", title=what)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    return figure


def influence(table: pd.DataFrame, headline: float, names: tuple[str, str]) -> Figure:
    """The headline without each donor, by class, and a line at the headline."""
    figure = Figure(figsize=(6.4, 2.2))
    axes = figure.subplots()
    rng = np.random.default_rng(0)  # of the vertical jitter only
    for value, colour in zip((0, 1), (NEGATIVE, POSITIVE), strict=True):
        own = table.loc[table["label"] == value, "without"]
        axes.scatter(own, value + rng.uniform(-0.25, 0.25, len(own)), s=28, c=colour, alpha=0.7)
    axes.axvline(headline, color=GREY, ls="--", lw=1)
    axes.set(xlabel="donor AUROC without one donor", ylim=(-0.6, 1.6))
    axes.set_yticks([0, 1], names)
    axes.grid(axis="y", visible=False)
    return figure


def permuted(null: pd.DataFrame, evaluation: Evaluation) -> Figure:
    """AUROCs with permuted labels, and a line at that with the true ones, for the model or the comparator."""
    name = MODEL if MODEL in evaluation.tests else str(evaluation.comparator)
    figure = Figure(figsize=(6.4, 2.4))
    axes = figure.subplots()
    axes.hist(null[name].dropna(), bins=np.linspace(0, 1, 41).tolist(), color=GREY)
    observed = evaluation.donors[name].mean_over_folds["auroc"]
    axes.axvline(observed, color=POSITIVE, lw=2, label="true labels")
    axes.set(xlim=(0, 1), xlabel=f"donor AUROC of {name}", ylabel="permutations")
    axes.legend(fontsize=8, frameon=False)
    return figure


def confusion(evaluation: Evaluation, names: tuple[str, str]) -> Figure:
    """Donors and nuclei by true and called class (pooled over folds)."""
    levels = {"donors": evaluation.donors} | ({"nuclei": evaluation.cells} if evaluation.cells else {})
    figure = Figure(figsize=(3.3 * len(levels), 3.0))
    panels = figure.subplots(1, len(levels), squeeze=False)[0]
    for axes, (what, scores) in zip(panels, levels.items(), strict=True):
        p = scores[MODEL].pooled
        counts = np.array(
            [[p["true_negative"], p["false_positive"]], [p["false_negative"], p["true_positive"]]]
        )
        share = counts / counts.sum(axis=1, keepdims=True)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), n in np.ndenumerate(counts):
            dark = share[row, column] > 0.6
            text = f"{n:,.0f}\n{share[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        axes.set_xticks([0, 1], names)
        axes.set_yticks([0, 1], names)
        axes.set(xlabel="called", ylabel="truth", title=what)
        axes.grid(visible=False)
    return figure
