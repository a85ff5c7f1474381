"""Everything a finished run knows, and the sentences and tables that all its outputs share."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from oligo_ad.config import Config
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.covariates import Covariates
from oligo_ad.data.split import PARTS, Fold
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.results.evaluation import FEW_DONORS, MODEL, ORACLE, Outcome
from oligo_ad.results.metrics import LEVEL, Interval, Scores
from oligo_ad.training.fit import Fitted

# Column heads of the table of results, and the metric of `metrics.score` under each.
SHOWN = {
    "balanced accuracy": "balanced_accuracy",
    "MCC": "mcc",
    "AUPRC minority": "auprc_minority",
    "Brier": "brier",
    "F1 positive": "f1_positive",
    "F1 negative": "f1_negative",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class Story:
    """A finished run."""

    config: Config
    folder: Path
    cohort: Cohort
    covariates: Covariates
    folds: list[Fold]
    fitted: list[Fitted]
    pretrained: Pretrained | None
    gene_names: list[list[str]]
    about_input: dict[str, str]
    attention: list[str]
    outcome: Outcome
    environment: dict[str, str]
    seconds: float
    objective_name: str  # what a search maximises, on validation donors
    objective: float

    @property
    def random_weights(self) -> bool:
        """Whether a model that is meant to be pretrained is not."""
        return self.pretrained is not None and self.pretrained.weights is None

    @property
    def stamp(self) -> str:
        """What every output must say about data and model, or nothing."""
        marks = ["SIMULATED"] if self.cohort.simulated else []
        marks += ["RANDOM WEIGHTS, NOT PRETRAINED"] if self.random_weights else []
        marks += ["VALIDATION DONORS, NOT TEST DONORS"] if self.config.task.name == "validate" else []
        marks += ["LABEL-DERIVED METADATA"] if self.outcome.label_derived else []
        return " · ".join(marks)

    @property
    def class_names(self) -> tuple[str, str]:
        """Words of the negative and the positive class."""
        about = self.cohort.about
        return about["negative (0)"], about["positive (1)"]

    @property
    def overrides(self) -> list[str]:
        """The words of the command line that started the run."""
        saved = self.folder / ".hydra" / "overrides.yaml"
        return [str(word) for word in OmegaConf.load(saved)] if saved.exists() else []

    def verdict(self) -> str:
        """The result in one or two sentences, with its uncertainty and the best baseline."""
        outcome = self.outcome
        negative, positive = self.class_names
        auroc = outcome.donors[MODEL].auroc
        model = self.config.model.name
        said = f"Held-out {positive} and {negative} donors "
        if outcome.smallest_test_class < FEW_DONORS:
            said = f"{outcome.smallest_test_class} test donors in the smaller class are too few to say "
            said += f"whether {model} tells them apart"
        elif auroc.high < 0.5:
            said += f"are ranked the wrong way round by {model}"
        else:
            can = "can be told apart" if auroc.low > 0.5 else "cannot be told apart beyond chance"
            said += f"{can} by {model}"
        said += f": donor AUROC {outcome.headline:.3f}, approximate {LEVEL} % interval {shown(auroc)}."
        if outcome.best_baseline and outcome.gain_interval:
            more = "more than" if outcome.gain_interval.low > 0 else "not shown to be more than"
            said += (
                f" That is {more} the best baseline, {outcome.best_baseline} "
                f"({outcome.donors[outcome.best_baseline].mean_over_folds['auroc']:.3f}; difference "
                f"{outcome.gain:+.3f}, {shown(outcome.gain_interval, '+')})."
            )
        return f"{self.stamp}. {said}" if self.stamp else said

    def results_table(self, level: str) -> pd.DataFrame:
        """Test results of every predictor, and the model's on its training donors, as text.

        Args:
            level: `donors` or `cells`.
        """
        scores: dict[str, Scores] = getattr(self.outcome, level)
        training: dict[str, float] = getattr(self.outcome, f"training_{level}")
        rows = {self.label(name): _row(s.mean_over_folds, shown(s.auroc)) for name, s in scores.items()}
        items = list(rows.items())
        items.insert(1, (f"{self.config.model.name}, on its training donors", _row(training, "")))
        return pd.DataFrame(dict(items)).T

    def label(self, predictor: str) -> str:
        """How a predictor is called in tables."""
        names = {MODEL: self.config.model.name, ORACLE: "oracle (planted truth)"}
        return names.get(predictor, f"baseline: {predictor}")

    def split_table(self) -> pd.DataFrame:
        """Donors and nuclei of each class in each part of each fold."""
        donors, rows = self.cohort.donors, []
        for fold in self.folds:
            for part in PARTS:
                own = donors.loc[list(getattr(fold, part))]
                row: dict[str, object] = {"fold": fold.number, "part": part}
                for value in (1, 0):
                    of_class = own[own["label"] == value]
                    row[f"{self.class_names[value]} donors"] = len(of_class)
                    row[f"{self.class_names[value]} nuclei"] = f"{of_class['nuclei'].sum():,}"
                rows.append(row)
        return pd.DataFrame(rows)

    def flow_table(self) -> pd.DataFrame:
        """Donors and nuclei of each class after each step of the selection."""
        flow = self.cohort.flow
        names = dict(zip(("negative", "positive"), self.class_names, strict=True))
        text = flow.assign(
            value=[
                f"{d:,} donors, {n:,} nuclei" for d, n in zip(flow["donors"], flow["nuclei"], strict=True)
            ],
            group=flow["class"].map(names).fillna("other or missing"),
        )
        table = text.pivot(index="step", columns="group", values="value")
        order = [names["positive"], names["negative"], "other or missing"]
        return table.loc[flow["step"].drop_duplicates(), order].rename_axis(index=None, columns=None)

    def shared_genes(self) -> int:
        """Genes that the panels of all folds have in common."""
        return len(set.intersection(*map(set, self.gene_names)))

    def n_parameters(self) -> int:
        """Trained parameters of one model."""
        return sum(p.numel() for p in self.fitted[0].model.parameters() if p.requires_grad)


def shown(interval: Interval, sign: str = "") -> str:
    """`0.61 to 0.93`."""
    return f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"


def _row(metrics: dict[str, float], auroc_interval: str) -> dict[str, str]:
    row = {"AUROC": f"{metrics['auroc']:.3f}", f"{LEVEL} % interval": auroc_interval}
    return row | {head: f"{metrics[name]:.3f}" for head, name in SHOWN.items()}
