"""Thinned counts: what a shallower sequencing of the same nuclei would have given, and nothing else."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from oligo_ad import tasks
from oligo_ad.data import depth
from oligo_ad.data.cache import describe, load_cohort, load_matched
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.depth import common_depth, thinned
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from tests import builders


def uneven(seed: int = 0) -> ad.AnnData:
    """Positive donors were sequenced three times deeper."""
    adata = builders.atlas(9, 6, nuclei=40, genes=60, seed=seed)
    deep = np.where(adata.obs["ADNC"] == "High", 3, 1)
    adata.X = sp.csr_matrix(adata.X.multiply(deep[:, None]).astype(np.float32))
    return adata


def thin(cohort: Cohort, folder: Path, name: str = "thin", min_genes: int = 1) -> Cohort:
    (folder / name).mkdir(parents=True)
    return thinned(cohort, folder / name, min_genes)


def made(adata: ad.AnnData, folder: Path) -> tuple[Cohort, Cohort]:
    folder.mkdir(exist_ok=True)
    cohort = builders.cohort(adata, folder)
    return cohort, thin(cohort, folder)


def share_of(cohort: Cohort) -> np.ndarray:
    """The probability with which each nucleus keeps a count."""
    share: np.ndarray = np.minimum(1, common_depth(cohort)[0] / cohort.cells["total"].to_numpy())
    return share


def test_no_count_grows_and_each_is_kept_as_often_as_the_others_of_its_nucleus(tmp_path: Path) -> None:
    cohort, less = made(uneven(), tmp_path)
    before, after, share = builders.counts(cohort), builders.counts(less), share_of(cohort)
    assert (after <= before).all()
    assert (after == np.round(after)).all()
    deep = share < 1
    assert (after[~deep] == before[~deep]).all()
    expected, variance = before * share[:, None], before * (share * (1 - share))[:, None]
    error = (after - expected)[deep].sum(0) / np.sqrt(variance[deep].sum(0))
    assert np.abs(error).max() < 4.5
    assert error.std() == pytest.approx(1, abs=0.35)


def test_single_counts_vary_as_binomial_ones_do(tmp_path: Path) -> None:
    """Not only their sums: draws of neighbouring counts and genes have nothing to do with each other."""
    cohort, less = made(uneven(1), tmp_path)
    before, after, share = builders.counts(cohort), builders.counts(less), share_of(cohort)[:, None]
    seen = (before > 0) & (share < 1)
    z = ((after - before * share) / np.sqrt(np.maximum(before * share * (1 - share), 1e-9)))[seen]
    assert z.var() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.04


def test_totals_genes_and_sums_are_those_of_the_thinned_counts(tmp_path: Path) -> None:
    _, less = made(uneven(), tmp_path)
    counts = builders.counts(less)
    assert less.cells["total"].tolist() == counts.sum(1).tolist()
    assert less.cells["n_genes"].tolist() == (counts > 0).sum(1).tolist()
    assert (less.matrix.data > 0).all()
    for row, donor in enumerate(less.donors.index):
        own = counts[(less.cells["donor"] == donor).to_numpy()]
        assert less.sums.raw[row] == pytest.approx(own.sum(0))


def test_depth_no_longer_tells_the_classes_apart(tmp_path: Path) -> None:
    cohort, less = made(uneven(), tmp_path)
    label = builders.labels(cohort, 9)
    auroc = [roc_auc_score(label, one.cells.groupby("donor")["total"].median()) for one in (cohort, less)]
    assert auroc[0] == 1.0
    assert 0.1 < auroc[1] < 0.9


def test_the_user_is_told_how_much_was_thinned_and_who_is_poor_now(tmp_path: Path) -> None:
    cohort, less = made(uneven(), tmp_path)
    target, poorest = common_depth(cohort)
    medians = cohort.cells.groupby("donor")["total"].median()
    assert target == medians.min() == medians[poorest]
    note = less.notes[-1]
    words = (f"{int((share_of(cohort) < 1).sum())} of {len(cohort.cells)} nuclei", f"to {target:,.0f} counts")
    builders.assert_says(note, *words, f"median of {poorest}", f"highest is {medians.max():,.0f}")
    assert "min_genes" not in note
    fewest = int(np.median(less.cells["n_genes"]))
    note = thin(cohort, tmp_path, "again", fewest).notes[-1]
    poor = int((less.cells["n_genes"] < fewest).sum())
    builders.assert_says(note, f"{poor} have fewer than data.min_genes={fewest} genes then, and stay")


def same_counts(one: Cohort, other: Cohort) -> None:
    pd.testing.assert_frame_equal(one.cells, other.cells, check_exact=True)
    assert (builders.counts(one) == builders.counts(other)).all()


def test_what_is_drawn_for_a_nucleus_depends_on_no_other_nucleus_and_on_no_order(tmp_path: Path) -> None:
    """Apart from the common depth, which the poorest donor sets: here its nuclei stay."""
    adata = uneven()
    cohort, less = made(adata, tmp_path / "all")
    own = (adata.obs["Donor ID"] == common_depth(cohort)[1]).to_numpy()
    some = adata[own | (np.arange(adata.n_obs) % 3 == 0)]
    rng = np.random.default_rng(0)
    shuffled = some[rng.permutation(len(some)), rng.permutation(some.n_vars)].copy()
    _, alone = made(shuffled, tmp_path / "few")
    rows = np.flatnonzero(less.cells["barcode"].isin(alone.cells["barcode"]))
    assert len(rows) < len(less.cells)
    kept = less.cells.iloc[rows].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone.cells, check_exact=True)
    assert less.genes["name"].tolist() == alone.genes["name"].tolist()
    assert (builders.counts(less)[rows] == builders.counts(alone)).all()


def test_blocks_of_any_size_give_the_same_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, less = made(uneven(), tmp_path)
    for n in (1, 50, 777):
        monkeypatch.setattr(depth, "BLOCK", n)
        same_counts(less, thin(cohort, tmp_path, f"{n} values"))


def test_what_a_lower_depth_keeps_a_higher_one_keeps_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, less = made(uneven(), tmp_path)
    target, poorest = common_depth(cohort)
    monkeypatch.setattr(depth, "common_depth", lambda cohort: (target / 2, poorest))
    assert (builders.counts(thin(cohort, tmp_path, "lower")) <= builders.counts(less)).all()


def test_the_cache_keeps_both_cohorts_and_an_option_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = builders.write(uneven(), tmp_path)
    plain, matched = (
        builders.configuration(f"data.path={path}", f"data.match_depth={value}").data
        for value in ("false", "true")
    )
    cache = tmp_path / "cache"
    less = load_cohort(matched, cache)
    whole = load_cohort(plain, cache)
    assert whole.cells["total"].sum() > less.cells["total"].sum()
    assert describe(cache).count(f"of {path.name}") == 2
    assert describe(cache).count("at a common depth") == 1
    # From here on neither the file nor the whole cohort is read.
    monkeypatch.setattr("oligo_ad.data.cache.thinned", None)
    monkeypatch.setattr("oligo_ad.data.cache.build", None)
    for again in (load_matched(whole, plain, cache), load_cohort(matched, cache)):
        same_counts(again, less)
        assert "matched" in again.about["depth"]


def logged() -> ad.AnnData:
    adata = uneven()
    adata.X = adata.X.multiply(1e4 / adata.X.sum(axis=1)).tocsr().log1p()
    return adata


def test_values_that_are_no_counts_are_not_thinned(tmp_path: Path) -> None:
    path = builders.write(logged(), tmp_path)
    config = builders.configuration(f"data.path={path}", "data.match_depth=true").data
    with pytest.raises(UserError, match=r"thins raw counts, and X of .* holds logarithms"):
        load_cohort(config, tmp_path / "cache")


# In a run


pytestmark = pytest.mark.usefixtures("without_pictures")
SMALL = ("fit.epochs=1", "model.network.hidden=[8]", "evaluation.baselines=false")
MODELS = {
    "nuclei": SMALL,
    "bags": (*SMALL, "pool=mean", "fit.bag_size=4", "fit.batch_size=4", "metadata=on"),
}


def run(adata: ad.AnnData, folder: Path, *words: str) -> Record:
    path = folder / "atlas.h5ad"
    path = path if path.exists() else builders.write(adata, folder)
    config = builders.configuration(f"data.path={path}", f"cache.dir={folder / 'cache'}", *words)
    number = len(list(folder.glob("run*")))
    tasks.run(config, folder / f"run{number}")
    return Record(folder / f"run{number}")


@pytest.mark.parametrize("model", MODELS)
def test_test_donors_are_predicted_from_thinned_counts_by_the_same_model(model: str, tmp_path: Path) -> None:
    record = run(uneven(), tmp_path, *MODELS[model])
    own = record.predictions.query("part == 'test'").reset_index(drop=True)
    matched = record.matched
    assert matched is not None
    columns = ["fold", "seed", "part", "donor", "barcode"]
    pd.testing.assert_frame_equal(matched[columns], own[columns])
    assert (matched["logit"] != own["logit"]).any()
    assert any("at a common depth too" in note for note in record.facts.notes)
    without = run(uneven(), tmp_path, *MODELS[model], "evaluation.depth_matched=false")
    assert without.matched is None
    pd.testing.assert_frame_equal(without.predictions, record.predictions, check_exact=True)


def test_where_no_nucleus_is_deeper_than_the_poorest_donor_nothing_changes(tmp_path: Path) -> None:
    """The same model gives the same logits, to the last bit."""
    adata, rng = builders.atlas(), np.random.default_rng(0)
    # A fourth of the nuclei of each donor is poorer.
    totals = np.where(np.arange(adata.n_obs) // 15 % 8, 200, 120)
    counts = rng.multinomial(totals, rng.dirichlet(np.ones(60)))
    adata.X = sp.csr_matrix(counts.astype(np.float32))
    record = run(adata, tmp_path, *SMALL)
    own = record.predictions.query("part == 'test'").reset_index(drop=True)
    assert record.matched is not None
    pd.testing.assert_frame_equal(record.matched, own[record.matched.columns], check_exact=True)


def test_a_file_without_counts_is_scored_as_it_is_and_that_is_said(tmp_path: Path) -> None:
    record = run(logged(), tmp_path, *SMALL)
    assert record.matched is None
    assert any(
        "not scored at a common depth too: the file has no raw counts" in n for n in record.facts.notes
    )


def test_a_run_trained_at_a_common_depth_is_not_scored_at_it_again(tmp_path: Path) -> None:
    record = run(uneven(), tmp_path, *SMALL, "data.match_depth=true")
    assert record.matched is None
    assert "matched" in record.facts.cohort["depth"]
    assert any("nuclei are thinned" in note for note in record.facts.notes)
