"""The sentences and tables that all outputs of a run share."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from oligo_ad.baselines.predictors import ENSEMBLE, NETWORK
from oligo_ad.data.split import read_folds
from oligo_ad.record import SPLIT, Record
from oligo_ad.results.evaluation import MODEL, ORACLE, TEST, Evaluation
from oligo_ad.results.evidence import Evidence, evidence_of
from oligo_ad.results.intervals import LEVEL
from oligo_ad.results.permutation import OFFERED, seconds_of
from oligo_ad.results.verdict import shown, signed, verdict
from oligo_ad.words import command_of, word

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
INTERVAL_IS = (
    "95 %, of what the procedure, training included, is expected to reach on new donors: Newcombe 2006, with "
    "the variance of training after Nadeau & Bengio 2003"
)
# By benchmarks/coverage.py; see docs/evaluation.md.
COVERAGE = (
    "In simulations of 9 against 39 donors they covered the truth in 97 to 100 % of cohorts for AUROC, in "
    "94 to 100 % for differences of two AUROCs."
)


@dataclass(frozen=True)
class RunSummary:
    """The results of a run, in words and tables."""

    record: Record
    evaluation: Evaluation

    @cached_property
    def evidence(self) -> Evidence:
        """What is known beside the scores."""
        return evidence_of(self.record, self.evaluation)

    @property
    def folder(self) -> Path:
        return self.record.folder

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.record.config.model.name

    @property
    def stamp(self) -> str:
        """The warning that every output carries, such as SIMULATED; empty where none is needed."""
        facts = self.record.facts
        marks = ["SIMULATED"] if facts.simulated else []
        marks += ["RANDOM WEIGHTS, NOT PRETRAINED"] if facts.random_weights else []
        part = self.evaluation.part
        marks += [f"{part.upper()} DONORS, NOT TEST DONORS"] if part != TEST else []
        marks += ["LABEL-DERIVED METADATA"] if self.evaluation.label_derived else []
        return " · ".join(marks)

    @property
    def class_names(self) -> tuple[str, str]:
        """Names of the negative and the positive class."""
        return self.record.facts.classes

    @property
    def by_donor(self) -> bool:
        """Whether the model predicts donors, not nuclei."""
        return self.record.facts.sample == "donor"

    def verdict(self) -> str:
        """The result in a few sentences, with its uncertainty and the comparator, after the stamp."""
        text = verdict(self.evaluation, self.model, self.class_names)
        return f"{self.stamp}. {text}" if self.stamp else text

    def offer(self) -> str:
        """How the model can be tested, and how long that takes; empty where it was."""
        if MODEL in self.evaluation.tests or self.evaluation.part != TEST:
            return ""
        seconds = seconds_of(self.record.histories, OFFERED)
        command = command_of(["task=permute", word("run", self.folder)])
        return (
            f"Not tested against permuted labels: `{command}` does that, in about {duration(seconds)} for "
            f"{OFFERED} permutations; with task.predictors=baselines for the baselines alone, in minutes."
        )

    def results_table(self, level: Literal["donors", "cells"]) -> pd.DataFrame:
        """Results of every predictor, and the model's on its training donors, as text.

        Args:
            level: `donors` or `cells`.
        """
        evaluation = self.evaluation
        scores = evaluation.donors if level == "donors" else evaluation.cells
        training = evaluation.training_donors if level == "donors" else evaluation.training_cells
        rows = {self.label(name): _row(s.mean_over_folds, shown(s.auroc)) for name, s in scores.items()}
        if level == "donors":
            for name, row in zip(scores, rows.values(), strict=True):
                row |= self._comparison(name)
        items = list(rows.items())
        items.insert(1, (f"{self.model}, on its training donors", _row(training, "")))
        return pd.DataFrame(dict(items)).T.fillna("")

    def _comparison(self, name: str) -> dict[str, str]:
        """The model compared with one predictor, and that predictor with permuted labels."""
        differences, tests = self.evaluation.differences, self.evaluation.tests
        p = {"p": f"{tests[name].p:.3f}" if name in tests else ""} if tests else {}
        return {f"{self.model} minus it": signed(differences[name]) if name in differences else ""} | p

    def label(self, predictor: str) -> str:
        """The name of a predictor in tables."""
        names = {
            MODEL: self.model,
            ORACLE: "oracle (planted truth)",
            ENSEMBLE: f"{self.model} and pseudobulk together",
            NETWORK: f"{self.model}, its network alone",
        }
        return names.get(predictor, f"baseline: {predictor}")

    def tests_table(self) -> pd.DataFrame:
        """The permutation test of each predictor that was refitted."""
        rows = {
            self.label(name): {
                "permutations": f"{test.n:,}",
                "p": f"{test.p:.3f}",
                "permuted AUROC, mean": f"{test.null_mean:.3f}",
                "SD": f"{test.null_sd:.3f}",
            }
            for name, test in self.evaluation.tests.items()
        }
        return pd.DataFrame(rows).T

    def lockbox_table(self) -> pd.DataFrame:
        """Scores of the donors that were set aside, as text."""
        rows = {self.label(n): _row(s.pooled, shown(s.auroc)) for n, s in self.evidence.lockbox.items()}
        return pd.DataFrame(rows).T

    def readers_table(self) -> pd.DataFrame:
        """What is combined in each fold, as text: AUROC over known donors left out, and weight, of each."""
        rows = {
            history.fold: {
                name: f"{reader.auroc:.3f}, weight {reader.weight:.2f}"
                for name, reader in history.readers.items()
            }
            for history in self.record.histories
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="fold").reset_index()

    def split_table(self) -> pd.DataFrame:
        """Donors and nuclei of each class in each part of each fold."""
        donors, rows = self.record.facts.donor_table, []
        for fold in read_folds(self.folder / SPLIT):
            for part, ids in fold.parts.items():
                own = donors.loc[list(ids)]
                row: dict[str, object] = {"fold": fold.number, "part": part}
                for value in (1, 0):
                    of_class = own[own["label"] == value]
                    row[f"{self.class_names[value]} donors"] = len(of_class)
                    row[f"{self.class_names[value]} nuclei"] = f"{of_class['nuclei'].sum():,}"
                rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def parts(self) -> pd.DataFrame:
        """Donors and nuclei, as numbers: a row for each fold, part and label."""
        donors, rows = self.record.facts.donor_table, []
        for fold in read_folds(self.folder / SPLIT):
            for part, ids in fold.parts.items():
                own = donors.loc[list(ids)]
                for label in (1, 0):
                    nuclei = own.loc[own["label"] == label, "nuclei"]
                    rows.append((fold.number, part, label, len(nuclei), int(nuclei.sum())))
        return pd.DataFrame(rows, columns=["fold", "part", "label", "donors", "nuclei"])

    def flow_table(self) -> pd.DataFrame:
        """Donors and nuclei of each class after each step of the selection."""
        flow = pd.DataFrame(self.record.facts.flow)
        values = [f"{d:,} donors, {n:,} nuclei" for d, n in zip(flow["donors"], flow["nuclei"], strict=True)]
        groups = ["positive", "negative", "excluded"]
        text = flow.assign(value=values, group=flow["class"].where(flow["class"].isin(groups), "excluded"))
        table = text.drop_duplicates(["step", "group"]).pivot(index="step", columns="group", values="value")
        table = table.reindex(index=flow["step"].drop_duplicates(), columns=groups, fill_value="")
        # Named at the end: a class may be called as a column is.
        table.columns = pd.Index([*reversed(self.class_names), "other or missing"])
        return table.rename_axis(index=None)

    @cached_property
    def shared_genes(self) -> int:
        """Genes that the models of all folds read."""
        return len(set.intersection(*(set(history.genes) for history in self.record.histories)))

    @cached_property
    def seconds(self) -> float:
        """Duration of the whole run."""
        return self.record.facts.seconds + sum(history.seconds for history in self.record.histories)

    def weighting(self) -> str:
        """How the classes were weighted in the loss."""
        weights = ", ".join(f"{history.pos_weight:.3f}" for history in self.record.histories)
        if self.record.config.fit.pos_weight == "auto":
            samples = "donors" if self.by_donor else "nuclei"
            if self.record.config.fit.sampling == "donor":
                return "classes, and donors of a class, drawn alike"
            return (
                f"the positive class weighted by negatives / positives among training {samples} ({weights})"
            )
        return f"the positive class weighted by {weights}, as set by fit.pos_weight"

    def clipping(self) -> str:
        """What was done to gradients."""
        clip = self.record.config.fit.clip
        return "gradients not clipped" if clip is None else f"gradient norm clipped at {clip}"

    @property
    def left_out(self) -> str:
        """Donors that are known to a fold, and scored by networks that have not seen them."""
        if self.record.config.fit.members == 1:
            return "validation donors of the fold"
        return "known donors, each left out by one member"

    def calibrated_on(self) -> str:
        """How many donors a calibration is fitted on."""
        donors = self.record.histories[0].donors
        if self.record.config.fit.members > 1:
            return f"on {donors['train'] + donors['validation']} donors, each left out by one member"
        return f"on {donors['validation']} validation donors or about as many, which is few"

    def trained_on(self) -> str:
        """The donors that shape the weights of the network."""
        fit = self.record.config.fit
        if fit.members > 1:
            every = ", then trained again on all of them" if fit.refit else ""
            return f"{fit.members} members, each without another inner fold of the known donors{every}"
        return "training and validation donors of the fold" if fit.refit else "training donors of the fold"

    def epoch_kept(self) -> str:
        """What chose the epoch."""
        fit = self.record.config.fit
        return "nothing: the last" if fit.keep == "last" else f"{self.left_out}, by {fit.monitor}"

    def threshold(self) -> str:
        """What the threshold was fitted on."""
        given = self.record.config.evaluation.threshold
        return self.left_out if given == "validation" else f"nothing: fixed at {given}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _row(metrics: dict[str, Any], auroc_interval: str) -> dict[str, str]:
    row = {"AUROC": f"{metrics['auroc']:.3f}", f"{LEVEL} % interval": auroc_interval}
    return row | {head: f"{metrics[name]:.3f}" for head, name in SHOWN.items()}
