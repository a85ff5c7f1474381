"""The result of a run: predictions of test donors by every predictor, and what follows from them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from oligo_ad.config import EvaluationConfig
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.split import Fold
from oligo_ad.results import metrics
from oligo_ad.results.metrics import Interval, Scores

MODEL, ORACLE = "model", "oracle"
FEW_DONORS = 5  # in the smaller class of all test donors: below this an interval means nothing


@dataclass(frozen=True)
class FoldPrediction:
    """What the model says in one fold. `test` and `train` are cohort rows, each with probabilities."""

    fold: Fold
    threshold: float
    test: np.ndarray
    test_probability: np.ndarray
    train: np.ndarray
    train_probability: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """Everything the report is drawn from.

    `donor_table`: a row per fold and test donor: fold, donor, label, nuclei, threshold, and one column
    of scores per predictor. `cell_table`: the same per test nucleus. `donors` and `cells`: scores per
    predictor. `gain`: donor AUROC above the best baseline, with `gain_interval`.
    """

    donor_table: pd.DataFrame
    cell_table: pd.DataFrame
    donors: dict[str, Scores]
    cells: dict[str, Scores]
    training_donors: dict[str, float]
    training_cells: dict[str, float]
    calibration: dict[str, float]
    best_baseline: str | None
    gain: float
    gain_interval: Interval | None
    label_derived: tuple[str, ...]
    smallest_test_class: int

    @property
    def headline(self) -> float:
        """Donor AUROC, mean over folds."""
        return self.donors[MODEL].mean_over_folds["auroc"]

    @property
    def predictors(self) -> list[str]:
        """The model first, then baselines, then the oracle."""
        return list(self.donors)


def evaluate(
    cohort: Cohort,
    predictions: list[FoldPrediction],
    baselines: pd.DataFrame | None,
    config: EvaluationConfig,
    seed: int,
    label_derived: tuple[str, ...],
) -> Outcome:
    """Turn predictions into scores.

    Args:
        cohort: nuclei and donors; a simulated one also carries the planted truth.
        predictions: one a fold.
        baselines: from `score_baselines`, or None.
        config: donor score, bootstrap.
        seed: of the bootstrap.
        label_derived: metadata columns that give the label away, if the user insisted.
    """
    cell_table = pd.concat([_cells(cohort, p) for p in predictions], ignore_index=True)
    names = [c for c in baselines if c not in ("fold", "donor")] if baselines is not None else []
    donor_table = _donors(cohort, cell_table, config)
    if baselines is not None:
        donor_table = donor_table.merge(baselines, on=["fold", "donor"], validate="one_to_one")
        # A baseline scores donors; each of its nuclei gets the donor's score.
        cell_table = cell_table.merge(baselines, on=["fold", "donor"], validate="many_to_one")
    if "truth" in cohort.cells:
        names.append(ORACLE)
    # Only the model's threshold may be tuned; simple predictors are calibrated by their own fit.
    resamples = metrics.Resamples(cohort.donors["label"], config.bootstrap, seed)
    donors, cells = (
        {
            name: metrics.summarise(table if name == MODEL else table.assign(threshold=0.5), name, resamples)
            for name in [MODEL, *names]
        }
        for table in (donor_table, cell_table)
    )
    real = [name for name in names if name != ORACLE]
    best = max(real, key=lambda name: donors[name].mean_over_folds["auroc"], default=None)
    model_auroc = donors[MODEL].mean_over_folds["auroc"]
    training_donors, training_cells = _training(cohort, predictions, config)
    return Outcome(
        donor_table=donor_table,
        cell_table=cell_table,
        donors=donors,
        cells=cells,
        training_donors=training_donors,
        training_cells=training_cells,
        calibration=metrics.calibration(cell_table["label"].to_numpy(), cell_table[MODEL].to_numpy()),
        best_baseline=best,
        gain=model_auroc - (donors[best].mean_over_folds["auroc"] if best else 0.5),
        gain_interval=best
        and metrics.interval(resamples.auroc(donor_table, MODEL) - resamples.auroc(donor_table, best)),
        label_derived=label_derived,
        smallest_test_class=int(donor_table.drop_duplicates("donor")["label"].value_counts().min()),
    )


def _cells(cohort: Cohort, prediction: FoldPrediction) -> pd.DataFrame:
    own = cohort.cells.iloc[prediction.test]
    table = own[["barcode", "donor", "label"]].reset_index(drop=True)
    table.insert(0, "fold", prediction.fold.number)
    table["threshold"], table[MODEL] = prediction.threshold, prediction.test_probability
    if "truth" in own:
        table[ORACLE] = own["truth"].to_numpy()
    return table


def _donors(cohort: Cohort, cells: pd.DataFrame, config: EvaluationConfig) -> pd.DataFrame:
    rows = []
    for number, part in cells.groupby("fold"):
        scores = metrics.donor_scores(part[MODEL].to_numpy(), part["donor"].to_numpy(), config.donor_score)
        table = cohort.donors.loc[scores.index, ["label", "nuclei"]].rename_axis("donor").reset_index()
        table.insert(0, "fold", number)
        table["threshold"], table[MODEL] = part["threshold"].iloc[0], scores.to_numpy()
        if ORACLE in part:
            table[ORACLE] = part.groupby("donor")[ORACLE].mean().to_numpy()
        rows.append(table)
    return pd.concat(rows, ignore_index=True)


def _training(
    cohort: Cohort, predictions: list[FoldPrediction], config: EvaluationConfig
) -> tuple[dict[str, float], dict[str, float]]:
    """Means over folds of the scores on training donors and on their nuclei.

    Shown beside the test, never as a result.
    """
    donors, cells = [], []
    for p in predictions:
        own = cohort.cells.iloc[p.train]
        scores = metrics.donor_scores(p.train_probability, own["donor"].to_numpy(), config.donor_score)
        label = cohort.donors.loc[scores.index, "label"].to_numpy()
        donors.append(metrics.score(label, scores.to_numpy(), p.threshold))
        cells.append(metrics.score(own["label"].to_numpy(), p.train_probability, p.threshold))
    return pd.DataFrame(donors).mean().to_dict(), pd.DataFrame(cells).mean().to_dict()
