"""Baselines: simple predictors on the same folds. A model must be better than the best of them.

Each is fitted on a fold's train and validation donors (they need no early stopping) and scores its
test donors. All read and score donors, not nuclei.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.covariates import fit_coding
from oligo_ad.data.split import Fold
from oligo_ad.storage.expression import TARGET

# What each baseline reads; shown in the report.
MEANING = {
    "majority": "the commoner class, always",
    "covariates": "logistic regression on age, sex and APOE alleles",
    "depth": "logistic regression on nuclei per donor, UMIs and genes per nucleus",
    "pseudobulk": "L2 logistic regression on the donor's summed counts, log CPM",
}


PENALTIES = np.logspace(-5, 1, 7)  # inverse strengths of the L2 penalty that are tried


class Baselines:
    """The baselines, with everything that they read, for all folds.

    Args:
        cohort: nuclei and donors.
        label: 0 or 1, by donor id.
        covariates: [donors, columns], NaN where unknown; without columns there is no such baseline.
        seed: of the inner folds that choose the penalty.
    """

    def __init__(self, cohort: Cohort, label: pd.Series, covariates: pd.DataFrame, seed: int) -> None:
        self._label, self._covariates, self._seed = label, covariates, seed
        self._pseudobulk, self._depth = _pseudobulk(cohort), _depth(cohort)

    def score(self, fold: Fold) -> pd.DataFrame:
        """Probabilities of every baseline for the test donors of a fold: fold, donor, a column a baseline."""
        # Matrices of a few dozen donors: several threads would spend their time waiting for each other.
        with threadpool_limits(1):
            known, test = list(fold.development), list(fold.test)
            scored = pd.DataFrame({"fold": fold.number, "donor": test})
            scored["majority"] = float(self._label[known].mean() > 0.5)
            if self._covariates.shape[1]:
                coding = fit_coding(self._covariates, fold.development)
                scored["covariates"] = self._regress(coding.apply(self._covariates), known, test)
            scored["depth"] = self._regress(self._depth, known, test)
            # A gene silent in most development donors is noise times a large scale.
            expressed = (self._pseudobulk.loc[known] > 0).mean() > 0.5
            scored["pseudobulk"] = self._regress(self._pseudobulk.loc[:, expressed], known, test)
        return scored

    def _regress(self, features: pd.DataFrame, known: list[str], test: list[str]) -> np.ndarray:
        return _regress(features, self._label, known, test, self._seed)


def _regress(
    features: pd.DataFrame, label: pd.Series, known: list[str], test: list[str], seed: int
) -> np.ndarray:
    """Probability of class 1 of the test donors; the penalty is chosen within the known donors."""
    n_inner = min(5, int(label[known].value_counts().min()))
    if n_inner < 2:
        return np.full(len(test), float(label[known].mean()))
    inner = StratifiedKFold(n_inner, shuffle=True, random_state=seed)
    # The L2 solution lies in the span of the donors: rotating thousands of genes onto it is exact.
    scaled = StandardScaler().fit(features.loc[known])
    known_values, test_values = (scaled.transform(features.loc[part]) for part in (known, test))
    if known_values.shape[1] > len(known):
        basis = np.linalg.svd(known_values, full_matrices=False)[2]
        known_values, test_values = known_values @ basis.T, test_values @ basis.T
    penalty = min(PENALTIES, key=lambda c: _balanced_loss(c, known_values, label[known], inner))
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=2000)
    probability: np.ndarray = model.fit(known_values, label[known]).predict_proba(test_values)[:, 1]
    return probability


def _balanced_loss(c: float, values: np.ndarray, label: pd.Series, inner: StratifiedKFold) -> float:
    """Held-out log loss within the known donors, both classes weighing the same."""
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=2000)
    probability = cross_val_predict(model, values, label, cv=inner, method="predict_proba")[:, 1]
    weight = compute_sample_weight("balanced", label)
    return float(log_loss(label, probability, sample_weight=weight))


def _pseudobulk(cohort: Cohort) -> pd.DataFrame:
    """Log expression of each donor's summed counts; mean log values where there are no counts."""
    summed = cohort.sums.raw
    if cohort.expression.content == "counts":
        values = np.log1p(summed * (100 * TARGET / summed.sum(axis=1, keepdims=True)))
    else:
        values = summed / cohort.donors["nuclei"].to_numpy()[:, None]
    return pd.DataFrame(values, index=cohort.donors.index)


def _depth(cohort: Cohort) -> pd.DataFrame:
    by_donor = cohort.cells.groupby("donor")
    columns = {"nuclei": np.log(by_donor.size()), "genes": np.log(by_donor["n_genes"].mean())}
    if cohort.expression.content == "counts":
        columns["umis"] = np.log(by_donor["total"].mean())
    return pd.DataFrame(columns)
