"""A run as it is compared: what its directory says, and what of it cannot be read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from oligo_ad.errors import UserError
from oligo_ad.facts import Result
from oligo_ad.record import FACTS, Record
from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.intervals import HeldOut
from oligo_ad.results.metrics import held_out
from oligo_ad.sweeps.trials import field_of

# Fields that a search sets in its trials; they are no settings of the model.
TRIAL_FIELDS = (
    "task",
    *(f"task.{field}" for field in ("study", "trial", "objective", "seeds", "prune", "startup")),
)
Folds = tuple[str, frozenset[tuple[int, str, int]]]


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared; `overrides`: the fields that its command line set."""

    record: Record

    @property
    def folder(self) -> Path:
        return self.record.folder

    @cached_property
    def overrides(self) -> dict[str, str]:
        return {field_of(word): word.partition("=")[2] for word in self.record.words}

    @property
    def finished(self) -> bool:
        return self.record.finished

    @cached_property
    def damage(self) -> str:
        """What of it cannot be read; empty where all can."""
        try:
            _ = self.overrides, self.record.failure, self.finished and (self.result, self.folds)
        except UserError as error:
            return str(error)
        return ""

    @property
    def result(self) -> Result:
        return self.record.result

    @property
    def donors(self) -> pd.DataFrame:
        return self.record.donors

    @property
    def trained(self) -> float:
        """Donors that a fold was trained on; of a run that does not say, as many as were tested."""
        return self.result.headline.trained_donors or float(self.donors["donor"].nunique())

    @property
    def has_facts(self) -> bool:
        """Whether it recorded who its donors are."""
        return (self.record.folder / FACTS).exists()

    @property
    def validated(self) -> bool:
        """Whether it is a trial of a search, scored on validation donors."""
        return self.result.scored_on == "validation donors"

    @property
    def value(self) -> float:
        """What runs are ordered by: donor AUROC, or the objective of a search."""
        objective = self.result.objective
        return objective.value if self.validated and objective else self.result.headline.value

    @property
    def data(self) -> str:
        """A hash of the content of its data file; empty for runs of earlier versions."""
        source = self.result.sources.get("data")
        return source.fingerprint if source else ""

    @cached_property
    def folds(self) -> Folds:
        """What it was tested on: its data, and (fold, donor, label)."""
        rows = self.donors[["fold", "donor", "label"]].itertuples(index=False, name=None)
        return self.data, frozenset(rows)

    @property
    def status(self) -> str:
        if self.damage:
            return "damaged"
        if self.finished or self.record.pruned:
            return "finished" if self.finished else "pruned"
        return "failed" if self.record.failure else "did not end"

    @property
    def auroc(self) -> float:
        """Donor AUROC, mean over folds."""
        return self.result.headline.value

    @property
    def rows(self) -> tuple[HeldOut, np.ndarray]:
        """What is computed of its donors: the rows, and the scores of its model."""
        table = self.donors.sort_values(["fold", "donor"])
        return held_out(table, self.trained), table[MODEL].to_numpy()

    def settings(self, *left_out: str) -> tuple[tuple[str, str], ...]:
        """What its command line set, without some fields and those of a search; and its data."""
        own = sorted((k, v) for k, v in self.overrides.items() if k not in (*left_out, *TRIAL_FIELDS))
        return (*own, ("data", self.data))
