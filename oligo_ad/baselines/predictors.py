"""The baselines: what each is, and its scores of the test donors of a fold.

Each is fitted on a fold's train and validation donors (they need no early stopping). All read and score
donors, not nuclei.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

from oligo_ad.baselines.combine import mixed, stacked
from oligo_ad.baselines.linear import Regressed, coordinates, inner_folds, regress, standardised
from oligo_ad.baselines.pls import best_expressed, partial_least_squares
from oligo_ad.baselines.views import Views, centred_log_ratio
from oligo_ad.data.covariates import fit_coding
from oligo_ad.data.split import Fold

# What each reads; shown in the report. The model is compared with all of them.
RIVALS = {
    "majority": "the commoner class, always",
    "covariates": "logistic regression on age, sex and APOE alleles",
    "depth": "logistic regression on nuclei per donor, UMIs and genes per nucleus",
    "pseudobulk": "L2 logistic regression on the donor's summed counts, log CPM",
    "pls": "partial least squares on the same counts, of the best expressed genes",
    "axes": "L2 logistic regression on how a donor's nuclei lie along axes: mean, variance, skewness",
    "covariates+pseudobulk": "the same on both, each block with the same weight",
    "composition": "logistic regression on the shares of kinds of nuclei, as centred log ratios",
    "gene_sets": "logistic regression on the mean expression of sets of genes",
    "stack": "a convex combination of these, its weights learned inside the known donors",
}
ENSEMBLE = "ensemble"
NETWORK = "network"
MEANING = RIVALS | {
    ENSEMBLE: "a convex combination of the model and pseudobulk, its weight learned on validation donors",
    NETWORK: "the model's network, without the views that it is combined with",
}


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks through the loaded libraries, which takes as long as a fit


def one_thread() -> AbstractContextManager[object]:
    """Matrices of a few dozen donors: several threads would spend their time waiting for each other."""
    limited: AbstractContextManager[object] = _libraries().limit(limits=1)
    return limited


@dataclass(frozen=True)
class Baselines:
    """The baselines of a run, for all folds.

    `views`: what they read, without labels. `label`: 0 or 1, by donor id. `seed`: of the inner folds that
    choose penalties.
    """

    views: Views
    label: pd.Series
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Those that can be scored with what is known of these donors."""
        views = self.views
        lacking = {
            "covariates": not views.covariates.shape[1],
            "covariates+pseudobulk": not views.covariates.shape[1],
            "axes": views.spread is None,
            "composition": views.composition.shape[1] < 2,
            "gene_sets": not views.gene_sets.places,
        }
        return tuple(name for name in RIVALS if not lacking.get(name, False))

    def relabelled(self, label: pd.Series) -> "Baselines":
        """The same baselines with other labels."""
        return replace(self, label=label)

    def score(self, fold: Fold) -> pd.DataFrame:
        """Probabilities for the test donors of a fold: fold, donor, and a column a baseline."""
        with one_thread():
            found = self._regressed(fold.development, fold.test)
        known = self.label[list(fold.development)].to_numpy()
        scored = {name: own.test for name, own in found.items()}
        weight = stacked(np.stack([own.inner for own in found.values()]), known)
        scored["stack"] = weight @ np.stack([own.test for own in found.values()])
        table = pd.DataFrame({"fold": fold.number, "donor": list(fold.test)})
        return table.assign(majority=float(known.mean() > 0.5), **scored)[["fold", "donor", *self.names]]

    def ensemble(self, fold: Fold, model: pd.Series) -> np.ndarray:
        """Probabilities of the model and pseudobulk together, for the test donors of a fold.

        Args:
            model: its scores of validation and test donors, by donor id.
        """
        validation, test = list(fold.validation), list(fold.test)
        with one_thread():
            inner = self._pseudobulk(fold.train, validation).test
            outer = self._pseudobulk(fold.development, test).test
        weight = mixed(model[validation].to_numpy(), inner, self.label[validation].to_numpy())
        combined: np.ndarray = weight * model[test].to_numpy() + (1 - weight) * outer
        return combined

    def _regressed(self, known: Iterable[str], test: Iterable[str]) -> dict[str, Regressed]:
        """Every regression, by name."""
        views, donors = self.views, _Donors.of(self.views.donors, known, test)
        expressed = self._expressed(donors.known)
        genes = standardised(views.pseudobulk[:, expressed], donors.known)
        spanned = coordinates([genes], donors.known)
        points = {"depth": self._coordinates([views.depth.to_numpy()], donors), "pseudobulk": spanned}
        if "covariates" in self.names:
            coded = fit_coding(views.covariates, donors.names).apply(views.covariates).to_numpy(float)
            both = coordinates([spanned, standardised(coded, donors.known)], donors.known)
            points = {"covariates": self._coordinates([coded], donors)} | points
            points["covariates+pseudobulk"] = both
        if views.spread:
            points["axes"] = self._coordinates(list(views.spread(donors.names)), donors)
        if "composition" in self.names:
            shares = centred_log_ratio(views.composition.to_numpy(), donors.known)
            points["composition"] = self._coordinates([shares], donors)
        if "gene_sets" in self.names:
            points["gene_sets"] = self._coordinates([views.gene_sets.scores(genes, expressed)], donors)
        label, inner = self._label(), self._inner_folds(donors)
        given = (label, donors.known, donors.test, inner)
        found = {name: regress(own, *given) for name, own in points.items()}
        best = best_expressed(views.pseudobulk[donors.known])
        found["pls"] = partial_least_squares(self._coordinates([views.pseudobulk[:, best]], donors), *given)
        return found

    def _pseudobulk(self, known: Iterable[str], test: Iterable[str]) -> Regressed:
        donors = _Donors.of(self.views.donors, known, test)
        values = self.views.pseudobulk[:, self._expressed(donors.known)]
        x_DR = self._coordinates([values], donors)
        return regress(x_DR, self._label(), donors.known, donors.test, self._inner_folds(donors))

    def _coordinates(self, blocks_DF: list[np.ndarray], donors: "_Donors") -> np.ndarray:
        """Coordinates of donors by standardised features."""
        return coordinates([standardised(values, donors.known) for values in blocks_DF], donors.known)

    def _expressed(self, known: np.ndarray) -> np.ndarray:
        """Which genes most known donors express: one silent in most is noise times a large scale."""
        found: np.ndarray = (self.views.pseudobulk[known] > 0).sum(0) > len(known) / 2
        return found

    def _label(self) -> np.ndarray:
        return self.label.reindex(self.views.donors).to_numpy()

    def _inner_folds(self, donors: "_Donors") -> np.ndarray | None:
        return inner_folds(self._label()[donors.known].astype(float), self.seed)


@dataclass(frozen=True)
class _Donors:
    """Positions of known and test donors; `names` of the known ones."""

    names: tuple[str, ...]
    known: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, donors: pd.Index, known: Iterable[str], test: Iterable[str]) -> "_Donors":
        names = tuple(known)
        return cls(names, donors.get_indexer(list(names)), donors.get_indexer(list(test)))
