"""Scores of stored predictions: of the model, of every baseline, and of the planted truth."""

from dataclasses import dataclass

import pandas as pd

from oligo_ad.config import EvaluationConfig
from oligo_ad.data.cohort import DOUBT
from oligo_ad.facts import ABOVE_CHANCE, PARTS, FoldHistory
from oligo_ad.record import Record
from oligo_ad.results import metrics
from oligo_ad.results.calibration import agreement
from oligo_ad.results.intervals import Interval
from oligo_ad.results.metrics import Scores
from oligo_ad.results.permutation import PermutationTest, permutation_tests
from oligo_ad.scores import donor_scores, probability_of

MODEL, ORACLE = "model", "oracle"
COVARIATES, WITH_EXPRESSION = "covariates", "covariates+pseudobulk"
TRAIN, VALIDATION, TEST = PARTS
KEYS = ["fold", "donor"]
FEW_DONORS = 5  # in the smaller class of all scored donors: below this an interval means nothing


@dataclass(frozen=True)
class Difference:
    """The donor AUROC of one predictor minus that of another, on the same donors and folds."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run.

    `part`: the donors that are scored, `test`, or `validation` in a trial of a search. `donor_table`: a row
    per fold and scored donor: fold, donor, label, nuclei, threshold, and one column of scores per predictor.
    `cell_table`: the same per nucleus; empty, like `cells`, where the model predicts donors. `donors` and
    `cells`: scores per predictor. `comparator`: the baseline that was named as the one to beat, None where
    none was scored. `differences`: of the model to each other predictor but the oracle;
    `expression_over_covariates`: of covariates with pseudobulk to covariates alone. `tests`: permutation
    tests per predictor, empty where labels were not permuted.
    `axes`: how many axes explain more than chance, in the fold with the fewest; None where none were sought.
    `trained`: donors that a fold was trained on, on average. `doubt`: why expression may not be what it is
    taken for.
    """

    part: str
    donor_table: pd.DataFrame
    cell_table: pd.DataFrame
    donors: dict[str, Scores]
    cells: dict[str, Scores]
    training_donors: dict[str, float]
    training_cells: dict[str, float]
    calibration: dict[str, float]
    comparator: str | None
    differences: dict[str, Difference]
    expression_over_covariates: Difference | None
    tests: dict[str, PermutationTest]
    trained: float
    label_derived: tuple[str, ...]
    doubt: str
    axes: int | None

    @property
    def headline(self) -> float:
        """Donor AUROC, mean over folds."""
        return self.donors[MODEL].mean_over_folds["auroc"]

    @property
    def gain(self) -> float:
        """Donor AUROC above the comparator, or above chance where there is none."""
        return self.differences[self.comparator].value if self.comparator else self.headline - 0.5

    @property
    def gain_interval(self) -> Interval | None:
        """That of the difference to the comparator; None where there is none."""
        return self.differences[self.comparator].interval if self.comparator else None

    @property
    def smallest_class(self) -> int:
        """Scored donors in the smaller class."""
        return int(self.donor_table.drop_duplicates("donor")["label"].value_counts().min())

    @property
    def predictors(self) -> list[str]:
        """The model first, then baselines, then the oracle."""
        return list(self.donors)


def evaluate_run(record: Record) -> Evaluation:
    """Score what a run has predicted."""
    config, facts = record.config, record.facts
    return evaluate(
        record.predictions,
        record.histories,
        record.baselines,
        facts.donor_table,
        config.evaluation,
        tuple(facts.label_derived),
        facts.cohort.get(DOUBT, ""),
        record.permuted,
    )


def evaluate(
    predictions: pd.DataFrame,
    histories: list[FoldHistory],
    baselines: pd.DataFrame | None,
    donors: pd.DataFrame,
    config: EvaluationConfig,
    label_derived: tuple[str, ...] = (),
    doubt: str = "",
    permuted: pd.DataFrame | None = None,
) -> Evaluation:
    """Turn predictions into scores.

    Args:
        predictions, baselines: as `record` describes them.
        histories: of the folds, for their thresholds.
        donors: label and nuclei, by donor id.
        config: donor score and comparator.
        label_derived: metadata columns that give the label away, where the configuration allows them.
        doubt: why expression may not be what it is taken for.
        permuted: AUROCs with permuted labels, as `permutation_tests` takes them.
    """
    part = TEST if (predictions["part"] == TEST).any() else VALIDATION
    scored = _samples(predictions[predictions["part"] == part], histories, donors)
    train = _samples(predictions[predictions["part"] == TRAIN], histories, donors)
    of_nuclei = bool(scored["barcode"].notna().any())
    donor_table = _donor_table(scored, donors, config, of_nuclei)
    if baselines is not None:
        donor_table = donor_table.merge(baselines, on=KEYS, validate="one_to_one")
        # A baseline scores donors; each of its nuclei gets the donor's score.
        scored = scored.merge(baselines, on=KEYS, validate="many_to_one")
    rivals = [] if baselines is None else baselines.columns.drop(KEYS).to_list()
    names = [MODEL, *rivals, *([ORACLE] if ORACLE in scored else [])]
    trained = trained_donors(predictions, part)
    of_donors = _scores(donor_table, names, trained)
    auroc = {name: scores.mean_over_folds["auroc"] for name, scores in of_donors.items()}
    samples = scored if of_nuclei else donor_table
    return Evaluation(
        part=part,
        donor_table=donor_table,
        cell_table=scored if of_nuclei else scored.iloc[:0],
        donors=of_donors,
        cells=_scores(scored, names, trained) if of_nuclei else {},
        training_donors=_training(_donor_table(train, donors, config, of_nuclei)),
        training_cells=_training(train) if of_nuclei else {},
        calibration=agreement(samples["label"].to_numpy(), samples[MODEL].to_numpy()),
        comparator=config.comparator if config.comparator in rivals else None,
        differences={name: _difference(donor_table, of_donors, MODEL, name, trained) for name in rivals},
        expression_over_covariates=(
            _difference(donor_table, of_donors, WITH_EXPRESSION, COVARIATES, trained)
            if {WITH_EXPRESSION, COVARIATES} <= set(rivals)
            else None
        ),
        tests={} if permuted is None or part != TEST else permutation_tests(permuted, auroc),
        trained=trained,
        label_derived=label_derived,
        doubt=doubt,
        axes=min((int(h.input[ABOVE_CHANCE]) for h in histories if ABOVE_CHANCE in h.input), default=None),
    )


def trained_donors(predictions: pd.DataFrame, part: str) -> float:
    """Donors that a fold was trained on, on average: for test donors, those that stopped the training too."""
    parts = [TRAIN, VALIDATION] if part == TEST else [TRAIN]
    own = predictions[predictions["part"].isin(parts)].drop_duplicates(KEYS)
    return len(own) / own["fold"].nunique()


def _difference(
    donor_table: pd.DataFrame, scores: dict[str, Scores], name: str, other: str, trained: float
) -> Difference:
    gain = scores[name].mean_over_folds["auroc"] - scores[other].mean_over_folds["auroc"]
    return Difference(gain, metrics.auroc_gain(donor_table, name, other, trained))


def donor_table_of(
    predictions: pd.DataFrame, record: Record, donors: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A row for each fold and donor of some predictions; columns as of `Evaluation.donor_table`.

    Args:
        donors: label and nuclei by donor id; those of the run where None.
    """
    donors = record.facts.donor_table if donors is None else donors
    samples = _samples(predictions, record.histories, donors)
    of_nuclei = bool(samples["barcode"].notna().any())
    return _donor_table(samples, donors, record.config.evaluation, of_nuclei)


def _samples(predictions: pd.DataFrame, histories: list[FoldHistory], donors: pd.DataFrame) -> pd.DataFrame:
    """fold, barcode, donor, label, threshold, model, and the oracle where the truth is known."""
    threshold = {history.fold: history.threshold for history in histories}
    table = predictions[["fold", "barcode", "donor"]].reset_index(drop=True)
    table["label"] = donors["label"].reindex(table["donor"]).to_numpy()
    table["threshold"] = table["fold"].map(threshold)
    table[MODEL] = probability_of(predictions["logit"].to_numpy())
    if "truth" in predictions:
        table[ORACLE] = predictions["truth"].to_numpy()
    return table


def _donor_table(
    samples: pd.DataFrame, donors: pd.DataFrame, config: EvaluationConfig, of_nuclei: bool
) -> pd.DataFrame:
    """A row per fold and donor: its score is that of its sample, or is made of its nuclei's."""
    how = config.donor_score if of_nuclei else "mean"
    rows = []
    for number, part in samples.groupby("fold"):
        scores = donor_scores(part[MODEL].to_numpy(), part["donor"].to_numpy(), how)
        table = donors.loc[scores.index, ["label", "nuclei"]].rename_axis("donor").reset_index()
        table.insert(0, "fold", number)
        table["threshold"], table[MODEL] = part["threshold"].iloc[0], scores.to_numpy()
        if ORACLE in part:
            table[ORACLE] = part.groupby("donor")[ORACLE].mean().to_numpy()
        rows.append(table)
    return pd.concat(rows, ignore_index=True)


def _scores(table: pd.DataFrame, names: list[str], trained: float) -> dict[str, Scores]:
    # Only the model's threshold may be tuned; simple predictors are calibrated by their own fit.
    fixed = table.assign(threshold=0.5)
    return {name: metrics.summarise(table if name == MODEL else fixed, name, trained) for name in names}


def _training(table: pd.DataFrame) -> dict[str, float]:
    """Scores on training donors or nuclei, means over folds: shown beside the results, but no result."""
    of_folds = [
        metrics.score(*(part[column].to_numpy() for column in ("label", MODEL, "threshold")))
        for _, part in table.groupby("fold")
    ]
    return {str(name): float(value) for name, value in pd.DataFrame(of_folds).mean().items()}
