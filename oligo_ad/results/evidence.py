"""What a strict reader asks beyond the scores: confounders, subgroups, calibration, the donor that decides,
power, depth, and the donors that were set aside."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from oligo_ad.baselines.predictors import RIVALS
from oligo_ad.facts import donors_of
from oligo_ad.record import Record
from oligo_ad.results import confounders, influence, power, subgroups
from oligo_ad.results.calibration import Calibrated, Line, calibrate, fold_line
from oligo_ad.results.confounders import Confounder
from oligo_ad.results.evaluation import MODEL, TRAIN, VALIDATION, Difference, Evaluation, donor_table_of
from oligo_ad.results.metrics import Scores, auroc_gain, summarise
from oligo_ad.results.subgroups import Subgroup


@dataclass(frozen=True)
class Evidence:
    """Everything beside the scores of a run.

    `influence`: donors, the most influential first. `power`: a sentence. `matched`: scores of the model from
    counts thinned to a common depth, and their difference to the headline; None where they were not made.
    `lockbox`: scores of the model and of baselines for the donors that were set aside, empty unless opened.
    """

    confounders: list[Confounder]
    subgroups: list[Subgroup]
    calibrated: Calibrated
    influence: pd.DataFrame
    influence_sentence: str
    power: str
    matched: tuple[Scores, Difference] | None
    lockbox: dict[str, Scores]

    def influence_table(self, classes: tuple[str, str]) -> pd.DataFrame:
        """The donors as text."""
        return influence.shown(self.influence, classes)

    def plain(self) -> dict[str, Any]:
        """For metrics.json."""
        matched = self.matched and {"scores": asdict(self.matched[0]), "change": asdict(self.matched[1])}
        return {
            "confounders": [asdict(one) for one in self.confounders],
            "subgroups": [asdict(one) for one in self.subgroups],
            "calibration": self.calibrated.plain(),
            "influence": self.influence.reset_index().to_dict("records"),
            "power": self.power,
            "depth_matched": matched,
            "lockbox": {name: asdict(scores) for name, scores in self.lockbox.items()},
        }


def evidence_of(record: Record, evaluation: Evaluation) -> Evidence:
    """Read and compute all of it from a record."""
    facts, table = record.facts, evaluation.donor_table
    against = evaluation.headline, evaluation.comparator, evaluation.gain
    moved = influence.influence_table(table, MODEL, *against)
    labels = table.drop_duplicates("donor")["label"]
    test = evaluation.tests.get(MODEL)
    design = power.Design(
        n_positive=int((labels == 1).sum()),
        n_negative=int((labels == 0).sum()),
        trained=evaluation.trained,
        folds=table["fold"].nunique(),
        null_sd=test.null_sd if test and test.n >= power.ENOUGH else None,
    )
    return Evidence(
        confounders=confounders.confounders_of(
            evaluation, facts.confounder_table, facts.donor_table["label"], facts.covariates
        ),
        subgroups=subgroups.subgroups_of(evaluation, facts.subgroups),
        calibrated=calibrated_of(record, evaluation),
        influence=moved,
        influence_sentence=influence.sentence(moved, *against),
        power=power.sentence(design),
        matched=_matched(record, evaluation),
        lockbox=_lockbox(record, evaluation.trained),
    )


def calibrated_of(record: Record, evaluation: Evaluation) -> Calibrated:
    """Donor probabilities of the test donors at the cohort's prevalence, and at a stated one."""
    config, lines = record.config.evaluation, dict[int, Line]()
    label = record.facts.donor_table["label"]
    predictions = record.predictions
    for history in record.histories:
        own = predictions[predictions["fold"] == history.fold]
        train = own[own["part"] == TRAIN]
        validation = donor_table_of(own[own["part"] == VALIDATION], record)
        lines[history.fold] = fold_line(
            config.calibration,
            history.pos_weight,
            label[train["donor"]].to_numpy(),
            label[train["donor"].unique()].to_numpy(),
            (validation[MODEL].to_numpy(), validation["label"].to_numpy()),
        )
    return calibrate(evaluation.donor_table, lines, config.prevalence)


def _matched(record: Record, evaluation: Evaluation) -> tuple[Scores, Difference] | None:
    if record.matched is None:
        return None
    table = donor_table_of(record.matched, record)
    scores = summarise(table, MODEL, evaluation.trained)
    keys = ["fold", "donor"]
    both = evaluation.donor_table.merge(table[[*keys, MODEL]].rename(columns={MODEL: "matched"}), on=keys)
    change = scores.mean_over_folds["auroc"] - evaluation.headline
    return scores, Difference(change, auroc_gain(both, "matched", MODEL, evaluation.trained))


def _lockbox(record: Record, trained: float) -> dict[str, Scores]:
    """Of donors that no fold has seen, scored by the mean over the models of all folds."""
    if record.lockbox is None:
        return {}
    by_fold = donor_table_of(record.lockbox, record, donors_of(record.facts.locked))
    rivals = [name for name in RIVALS if name in record.lockbox]
    scored = record.lockbox.groupby(["fold", "donor"])[rivals].first().reset_index()
    both = by_fold.merge(scored, on=["fold", "donor"])
    table = both.groupby("donor").mean(numeric_only=True).reset_index().assign(fold=1)
    if table["label"].nunique() < 2:
        return {}
    fixed = table.assign(threshold=0.5)
    names = (MODEL, *rivals)
    return {name: summarise(table if name == MODEL else fixed, name, trained) for name in names}
