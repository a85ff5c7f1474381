"""Simple predictors on the same folds: they find what is planted and never look at another test donor."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from oligo_ad.baselines.gene_sets import GeneSets
from oligo_ad.baselines.predictors import RIVALS, Baselines
from oligo_ad.baselines.views import Views, read_views
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.split import Fold, make_folds
from tests import builders

SPLIT = builders.configuration("split=cv", "split.folds=2").split


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Fits of two dozen donors lose most of their time between threads on a busy machine."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    adata = builders.atlas(14, 10, nuclei=16, genes=50, effect=0.6)
    return builders.cohort(adata, tmp_path_factory.mktemp("baselines"))


def score_baselines(
    cohort: Cohort, given: pd.DataFrame, folds: list[Fold], label: pd.Series | None = None
) -> pd.DataFrame:
    baselines = Baselines(views(cohort, given), labels(cohort) if label is None else label, seed=0)
    return pd.concat([baselines.score(fold) for fold in folds], ignore_index=True)


def views(cohort: Cohort, given: pd.DataFrame, kinds: pd.DataFrame | None = None) -> Views:
    """With these covariates, two kinds of nuclei in equal shares, and two sets of genes."""
    equal = pd.DataFrame(8, cohort.donors.index, ["a", "b"]) if kinds is None else kinds
    planted = cohort.genes["name"].isin([f"GENE{n}" for n in range(5)]).to_numpy()
    sets = GeneSets({"planted": np.flatnonzero(planted), "other": np.flatnonzero(~planted)[:10]})
    return read_views(cohort, given, equal, sets)


def labels(cohort: Cohort) -> pd.Series:
    """The first 14 donors of 24 are positive."""
    return builders.labels(cohort, 14)


@pytest.fixture(scope="module")
def folds(cohort: Cohort) -> list[Fold]:
    return make_folds(labels(cohort), SPLIT)


@pytest.fixture(scope="module")
def scored(cohort: Cohort, folds: list[Fold]) -> pd.DataFrame:
    return score_baselines(cohort, covariates(cohort), folds)


def covariates(cohort: Cohort, informative: bool = False) -> pd.DataFrame:
    """Age, unknown for the first donor, which follows the label if it is to be informative."""
    age = np.random.default_rng(0).normal(80, 5, len(cohort.donors))
    age += 20 * labels(cohort).to_numpy() * informative
    age[0] = np.nan
    return pd.DataFrame({"age": age}, index=cohort.donors.index)


def auroc(scored: pd.DataFrame, name: str, cohort: Cohort) -> float:
    """Mean over folds."""
    parts = [roc_auc_score(labels(cohort)[part["donor"]], part[name]) for _, part in scored.groupby("fold")]
    return float(np.mean(parts))


def test_every_test_donor_of_every_fold_is_scored_once(scored: pd.DataFrame, folds: list[Fold]) -> None:
    assert list(scored) == ["fold", "donor", *RIVALS]
    expected = [(fold.number, donor) for fold in folds for donor in fold.test]
    assert list(zip(scored["fold"], scored["donor"], strict=True)) == expected
    assert scored[list(RIVALS)].stack().between(0, 1).all()


def test_without_covariates_there_is_no_such_baseline(cohort: Cohort, folds: list[Fold]) -> None:
    scored = score_baselines(cohort, covariates(cohort)[[]], folds[:1])
    assert "covariates" not in scored
    assert "pseudobulk" in scored


@pytest.mark.parametrize(("n_positive", "n_negative", "commoner"), [(9, 6, 1.0), (6, 9, 0.0)])
def test_majority_names_the_commoner_class_of_the_known_donors(
    tmp_path: Path, n_positive: int, n_negative: int, commoner: float
) -> None:
    small = builders.cohort(builders.atlas(n_positive, n_negative, nuclei=4, genes=20), tmp_path)
    label = builders.labels(small, n_positive)
    folds = make_folds(label, replace(SPLIT, folds=2))
    assert (score_baselines(small, covariates(small)[[]], folds, label)["majority"] == commoner).all()


def test_pseudobulk_finds_a_planted_effect(cohort: Cohort, scored: pd.DataFrame) -> None:
    assert auroc(scored, "pseudobulk", cohort) > 0.9
    assert auroc(scored, "majority", cohort) == 0.5
    assert auroc(scored, "covariates", cohort) < 0.8


def test_pseudobulk_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    null = builders.cohort(builders.atlas(14, 10, nuclei=16, genes=50, seed=1), tmp_path)
    scored = score_baselines(null, covariates(null), make_folds(labels(null), SPLIT))
    assert 0.15 < auroc(scored, "pseudobulk", null) < 0.8


def test_covariates_find_what_they_tell(cohort: Cohort, folds: list[Fold]) -> None:
    scored = score_baselines(cohort, covariates(cohort, informative=True), folds)
    assert auroc(scored, "covariates", cohort) > 0.9


def test_depth_finds_a_difference_in_depth_that_pseudobulk_does_not_see(
    cohort: Cohort, folds: list[Fold], tmp_path: Path
) -> None:
    adata = builders.atlas(14, 10, nuclei=16, genes=50, seed=1)
    positive = (adata.obs["ADNC"] == "High").to_numpy()
    adata.X = sp.csr_matrix(adata.X.multiply(np.where(positive, 3, 1)[:, None]).astype(np.float32))
    deep = builders.cohort(adata, tmp_path)
    scored = score_baselines(deep, covariates(deep), folds)
    assert auroc(scored, "depth", deep) > 0.9
    assert auroc(scored, "pseudobulk", deep) < 0.8


def poisoned(cohort: Cohort, donor: str) -> tuple[Cohort, pd.Series]:
    """The same cohort, but this donor's counts and label are changed beyond recognition."""
    mine = (cohort.cells["donor"] == donor).to_numpy()
    counts = builders.counts(cohort)
    counts[mine] = np.arange(counts.shape[1], dtype=np.float32)[::-1] * 1000
    label = labels(cohort)
    label[donor] = 1 - label[donor]
    return builders.exchanged(cohort, counts), label


def test_a_test_donor_has_no_influence_on_the_scores_of_others(cohort: Cohort, folds: list[Fold]) -> None:
    donor = folds[0].test[0]
    given = covariates(cohort)
    clean = score_baselines(cohort, given, folds[:1]).set_index("donor")
    given = given.copy()
    given.loc[donor] = 1e6
    other, label = poisoned(cohort, donor)
    changed = score_baselines(other, given, folds[:1], label).set_index("donor")
    pd.testing.assert_frame_equal(clean.drop(donor), changed.drop(donor), check_exact=True)
    own = ["covariates", "depth", "pseudobulk", "covariates+pseudobulk", "gene_sets", "stack"]
    assert (clean.loc[donor, own] != changed.loc[donor, own]).all()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_known_donor_has_influence(cohort: Cohort, folds: list[Fold], part: str) -> None:
    clean = score_baselines(cohort, covariates(cohort), folds[:1])
    other, label = poisoned(cohort, getattr(folds[0], part)[0])
    changed = score_baselines(other, covariates(cohort), folds[:1], label)
    assert (clean["pseudobulk"] != changed["pseudobulk"]).any()


def test_a_fold_is_scored_alike_alone_and_among_others(
    cohort: Cohort, folds: list[Fold], scored: pd.DataFrame
) -> None:
    alone = score_baselines(cohort, covariates(cohort), folds[1:2])
    among = scored[scored["fold"] == folds[1].number].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among, check_exact=True)


def test_a_file_of_log_values_has_baselines_too(cohort: Cohort, folds: list[Fold]) -> None:
    logged = builders.exchanged(cohort, builders.log_values(cohort), "log")
    scored = score_baselines(logged, covariates(cohort), folds)
    assert auroc(scored, "pseudobulk", cohort) > 0.9
    assert scored["depth"].notna().all()


@pytest.mark.parametrize("content", ["counts", "log"])
def test_pseudobulk_does_not_see_how_many_nuclei_a_donor_has(
    cohort: Cohort, folds: list[Fold], content: str, tmp_path: Path
) -> None:
    adata = builders.atlas(14, 10, nuclei=16, genes=50, effect=0.6)
    again = adata[np.isin(adata.obs["Donor ID"], ["D01", "D05", "D15", "D22"])].copy()
    again.obs_names = again.obs_names + "-again"
    doubled = builders.cohort(ad.concat([adata, again]), tmp_path)
    if content == "log":
        cohort, doubled = (
            builders.exchanged(one, builders.log_values(one), "log") for one in (cohort, doubled)
        )
    once, twice = (score_baselines(one, covariates(one), folds) for one in (cohort, doubled))
    assert twice["pseudobulk"].to_numpy() == pytest.approx(once["pseudobulk"].to_numpy(), rel=1e-6)
    assert (twice["depth"] != once["depth"]).any()


def test_a_gene_that_most_known_donors_do_not_express_is_not_read(cohort: Cohort, folds: list[Fold]) -> None:
    values, rare = builders.log_values(cohort), np.arange(10, 20)
    few, tested = (cohort.cells["donor"].isin(own).to_numpy() for own in (folds[0].train[:3], folds[0].test))
    scores = []
    for expressed in (few, few | tested):
        own = values.copy()
        own[np.ix_(~expressed, rare)] = 0
        scores.append(score_baselines(builders.exchanged(cohort, own, "log"), covariates(cohort), folds[:1]))
    pd.testing.assert_series_equal(*(scored["pseudobulk"] for scored in scores), check_exact=True)


def test_baselines_are_sure_of_nothing_where_nothing_is(tmp_path: Path) -> None:
    """Their penalty is chosen by held-out loss: without a signal the strongest is best."""
    sure = []
    for effect in (0.0, 1.0):
        adata = builders.atlas(14, 10, nuclei=16, genes=50, effect=effect, seed=1)
        (tmp_path / str(effect)).mkdir()
        own = builders.cohort(adata, tmp_path / str(effect))
        scored = score_baselines(own, covariates(own), make_folds(labels(own), SPLIT))
        sure.append((scored["pseudobulk"] - 0.5).abs().mean())
    assert sure[0] < 0.1
    assert sure[1] > 0.3


# What is combined, and what is read beside expression


def kinds(cohort: Cohort, tell: bool) -> pd.DataFrame:
    """Nuclei of three kinds by donor; one is more common in positive donors if they are to tell."""
    counts = np.random.default_rng(3).integers(20, 40, (len(cohort.donors), 3))
    counts[:, 0] += 40 * labels(cohort).to_numpy() * tell
    return pd.DataFrame(counts, cohort.donors.index, ["a", "b", "c"])


@pytest.mark.parametrize("tell", [True, False])
def test_composition_finds_a_difference_in_kinds_of_nuclei(
    cohort: Cohort, folds: list[Fold], tell: bool
) -> None:
    baselines = Baselines(views(cohort, covariates(cohort), kinds(cohort, tell)), labels(cohort), 0)
    scored = pd.concat([baselines.score(fold) for fold in folds], ignore_index=True)
    assert (auroc(scored, "composition", cohort) > 0.9) == tell


def test_expression_and_covariates_together_find_what_either_tells(cohort: Cohort, tmp_path: Path) -> None:
    null = builders.cohort(builders.atlas(14, 10, nuclei=16, genes=50, seed=1), tmp_path)
    folds = make_folds(labels(cohort), SPLIT)
    for one, informative in ((cohort, False), (null, True)):
        scored = score_baselines(one, covariates(one, informative), folds)
        assert auroc(scored, "covariates+pseudobulk", one) > 0.9


def test_the_stack_follows_the_baseline_that_tells_something(cohort: Cohort, folds: list[Fold]) -> None:
    scored = score_baselines(cohort, covariates(cohort), folds)
    assert auroc(scored, "stack", cohort) > 0.9


def test_gene_sets_find_the_set_that_differs(cohort: Cohort, folds: list[Fold], scored: pd.DataFrame) -> None:
    assert auroc(scored, "gene_sets", cohort) > 0.9


def model_scores(cohort: Cohort, fold: Fold, tell: bool) -> pd.Series:
    """What a model gave to validation and test donors, right or at random."""
    own = [*fold.validation, *fold.test]
    noise = np.random.default_rng(0).uniform(0, 1, len(own))
    return pd.Series(labels(cohort)[own].to_numpy() * 0.8 + 0.1 if tell else noise, own)


def test_the_ensemble_lies_between_the_model_and_pseudobulk(cohort: Cohort, folds: list[Fold]) -> None:
    fold = folds[0]
    baselines = Baselines(views(cohort, covariates(cohort)), labels(cohort), 0)
    alone = baselines.score(fold)["pseudobulk"].to_numpy()
    weights = []
    for tell in (True, False):
        given = model_scores(cohort, fold, tell)
        own = given[list(fold.test)].to_numpy()
        weight = (baselines.ensemble(fold, given) - alone) / (own - alone)
        assert weight == pytest.approx(np.full(len(own), weight[0]))
        weights.append(weight[0])
    assert 0.3 < weights[1] < weights[0] < 0.7  # drawn towards 1/2 where few donors decide


def test_the_ensemble_does_not_see_labels_or_expression_of_other_test_donors(
    cohort: Cohort, folds: list[Fold]
) -> None:
    fold, given = folds[0], model_scores(cohort, folds[0], True)
    donor = fold.test[0]
    other, label = poisoned(cohort, donor)
    clean = Baselines(views(cohort, covariates(cohort)), labels(cohort), 0).ensemble(fold, given)
    given = given.copy()
    given[donor] = 0.5
    changed = Baselines(views(other, covariates(cohort)), label, 0).ensemble(fold, given)
    assert clean[1:].tolist() == changed[1:].tolist()


def test_other_labels_are_other_baselines_of_the_same_donors(cohort: Cohort, folds: list[Fold]) -> None:
    made = Baselines(views(cohort, covariates(cohort)), labels(cohort), 0)
    flipped = made.relabelled(1 - labels(cohort)).score(folds[0])
    assert flipped["pseudobulk"].to_numpy() == pytest.approx(
        1 - made.score(folds[0])["pseudobulk"].to_numpy(), abs=1e-6
    )
