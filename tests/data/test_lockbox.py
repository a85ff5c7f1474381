"""Donors of the lockbox are chosen by their id alone, take no part in anything, and are scored once."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad import tasks
from oligo_ad.config import Config
from oligo_ad.data import contrast
from oligo_ad.data.cache import clear
from oligo_ad.data.contrast import open_contrast
from oligo_ad.data.labels import Labels
from oligo_ad.data.lockbox import describe_box, is_locked, locked_donors, open_box
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.tasks import train
from oligo_ad.training.checkpoint import load_bundle
from oligo_ad.training.predict import predict_cohort
from tests import builders

pytestmark = pytest.mark.usefixtures("without_pictures")
LABEL = pd.Series([1] * 30 + [0] * 20, [f"D{n:02d}" for n in range(50)])


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_box_holds_the_donors_of_a_smaller_one(donor: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert not is_locked(donor, small) or is_locked(donor, large)


def test_the_share_of_locked_donors_is_the_share_that_was_asked_for() -> None:
    for share in (0.1, 0.3, 0.7):
        assert np.mean([is_locked(f"donor {n}", share) for n in range(4000)]) == pytest.approx(
            share, abs=0.03
        )


def test_who_is_locked_depends_on_nobody_else() -> None:
    box = locked_donors(LABEL, 0.3)
    assert 5 < len(box) < 25
    some = LABEL.sample(frac=0.7, random_state=0)
    assert set(locked_donors(some, 0.3).index) == set(box.index) & set(some.index)
    assert box.equals(LABEL[box.index])
    assert "donors are in the lockbox" in describe_box(box, ("Not AD", "High"))
    assert "it can show nothing" in describe_box(box[box == 1], ("Not AD", "High"))
    with pytest.raises(UserError, match="leaves no donor of a class"):
        locked_donors(LABEL, 0.99)


def settings(folder: Path, *words: str) -> Config:
    adata = builders.atlas(14, 12, nuclei=16, effect=0.5)
    path = folder / "atlas.h5ad"
    return builders.configuration(
        f"data.path={path if path.exists() else builders.write(adata, folder)}",
        f"cache.dir={folder / 'cache'}",
        "split.lockbox=0.3",
        "fit.epochs=1",
        "model.network.hidden=[8]",
        *words,
    )


def test_locked_donors_are_in_no_fold_no_cohort_and_no_baseline(tmp_path: Path) -> None:
    config = settings(tmp_path)
    opened = open_contrast(config.data, config.split, config.metadata, tmp_path / "cache")
    locked = set(opened.box.index)
    assert len(locked) > 3
    assert not locked & set(opened.cohort.donors.index)
    assert not locked & set(opened.labels.donors)
    assert not locked & {donor for fold in opened.folds for own in fold.parts.values() for donor in own}
    assert opened.flow["step"].iloc[-1] == "not in the lockbox"
    last = opened.flow.tail(3).set_index("class")["donors"]
    assert last["positive"] + last["negative"] == 26 - len(locked)
    assert any("lockbox" in remark for remark in opened.notes)
    both = opened.with_box()
    assert set(both.labels.donors) == locked | set(opened.labels.donors)


def check_that_what_is_locked_changes_nothing(folder: Path) -> None:
    """Other counts and facts of the locked donors: the same models, predictions and baselines."""
    words = ("metadata=on", "metadata.columns=[age,sex]", "evaluation.depth_matched=false")
    (folder / "other").mkdir()
    tasks.run(settings(folder, *words), folder / "one")
    locked = {donor for donor in (f"D{n:02d}" for n in range(26)) if is_locked(donor, 0.3)}
    adata = builders.atlas(14, 12, nuclei=16, effect=0.5)
    mine = adata.obs["Donor ID"].isin(locked).to_numpy()
    adata.X = sp.csr_matrix(adata.X.multiply(np.where(mine, 7, 1)[:, None]).astype(np.float32))
    adata.obs.loc[mine, "Age at Death"] = 20.0
    builders.write(adata, folder / "other")
    tasks.run(settings(folder / "other", *words, f"cache.dir={folder / 'cache2'}"), folder / "two")
    runs = [Record(folder / name) for name in ("one", "two")]
    for table in ("predictions", "baselines"):
        pd.testing.assert_frame_equal(*(getattr(run, table) for run in runs), check_exact=True)
    one, two = ((run.folder / "folds/1/model.safetensors").read_bytes() for run in runs)
    assert one == two


def test_a_run_that_leaves_the_box_shut_does_not_depend_on_who_is_in_it(tmp_path: Path) -> None:
    check_that_what_is_locked_changes_nothing(tmp_path)
    record = Record(tmp_path / "one")
    assert record.lockbox is None
    assert len(record.facts.locked) > 3
    assert "were not scored" in (tmp_path / "one/report.html").read_text()


@pytest.mark.parametrize("leak", ["all of them", "every second one"])
def test_locked_donors_that_get_into_folds_are_caught(
    leak: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if leak == "all of them":
        monkeypatch.setattr(Labels, "among", lambda self, donors: self)
    else:
        honest = contrast.locked_donors
        monkeypatch.setattr(contrast, "locked_donors", lambda *given: honest(*given).iloc[::2])
    with pytest.raises(AssertionError):
        check_that_what_is_locked_changes_nothing(tmp_path)


def test_an_open_box_is_scored_and_shuts_for_every_other_run(tmp_path: Path) -> None:
    config = settings(tmp_path, "split.open_lockbox=true", "split=cv", "split.folds=2")
    tasks.run(config, tmp_path / "run")
    record = Record(tmp_path / "run")
    assert set(record.lockbox["donor"]) == set(record.facts.locked)
    assert set(record.lockbox["fold"]) == {1, 2}
    scores = record.metrics["evidence"]["lockbox"]
    assert {"model", "pseudobulk", "stack"} <= set(scores)
    assert 0 <= scores["model"]["pooled"]["auroc"] <= 1
    assert "The lockbox, opened" in (tmp_path / "run/report.html").read_text()
    (entry,) = (tmp_path / "cache/lockbox").glob("*.json")
    assert json.loads(entry.read_text())["run"] == str(tmp_path / "run")
    clear(tmp_path / "cache")
    with pytest.raises(UserError, match=r"was opened on .* by .*run, which scored"):
        tasks.run(config, tmp_path / "again")
    assert not (tmp_path / "again/folds").exists()


def test_the_box_is_scored_by_the_models_that_are_saved(tmp_path: Path) -> None:
    """With covariates: those of locked donors are read as the others' are."""
    words = ("metadata=on", "metadata.columns=[age,sex,apoe4]", "evaluation.baselines=false")
    config = settings(tmp_path, "split.open_lockbox=true", *words)
    tasks.run(config, tmp_path / "run")
    record = Record(tmp_path / "run")
    prepared = open_contrast(config.data, config.split, config.metadata, tmp_path / "cache").prepared
    locked = prepared.of(record.facts.locked)
    bundle = load_bundle(tmp_path / "run/folds/1/model.safetensors")
    predicted = predict_cohort(bundle, locked, Accelerator(cpu=True))
    assert record.lockbox is not None
    assert record.lockbox[["donor", "barcode"]].equals(predicted[["donor", "barcode"]])
    assert record.lockbox["logit"].tolist() == predicted["logit"].tolist()
    assert set(record.lockbox["part"]) == {"test"}


def test_the_register_is_claimed_before_anything_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        assert len(list((tmp_path / "cache/lockbox").glob("*.json"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "prepare_model", broken)
    with pytest.raises(KeyboardInterrupt):
        tasks.run(settings(tmp_path, "split.open_lockbox=true"), tmp_path / "run")


BOX = locked_donors(LABEL, 0.3)


def test_the_run_that_opened_a_box_may_go_on_and_no_other(tmp_path: Path) -> None:
    for _ in range(2):
        open_box(BOX, "ADNC", tmp_path / "run", ["seed=1"], tmp_path)
    with pytest.raises(UserError, match=rf"scored {len(BOX)} of its {len(BOX)} donors"):
        open_box(BOX, "ADNC", tmp_path / "other", [], tmp_path)


def test_a_box_with_one_donor_more_or_less_is_no_other_box(tmp_path: Path) -> None:
    open_box(BOX, "ADNC", tmp_path / "run", [], tmp_path)
    for some in (BOX.iloc[1:], LABEL, BOX.iloc[:1]):
        with pytest.raises(UserError, match="ordinary test donors"):
            open_box(some, "ADNC", tmp_path / "other", [], tmp_path)
    open_box(LABEL.drop(BOX.index), "ADNC", tmp_path / "others", [], tmp_path)
    open_box(BOX, "another label", tmp_path / "label", [], tmp_path)
    for name in ("one", "two"):
        open_box(BOX, "ADNC", tmp_path / name, [], tmp_path, simulated=f"SIMULATED-{name}")


def test_of_runs_that_open_a_box_at_once_one_does(tmp_path: Path) -> None:
    def opens(number: int) -> bool:
        try:
            open_box(BOX, "ADNC", tmp_path / f"run{number}", [], tmp_path)
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(opens, range(8))) == 1


def test_a_damaged_register_is_no_leave_to_look_again(tmp_path: Path) -> None:
    open_box(BOX, "ADNC", tmp_path / "run", [], tmp_path)
    (entry,) = (tmp_path / "lockbox").glob("*.json")
    entry.write_text(entry.read_text()[:40])
    with pytest.raises(UserError, match="is damaged"):
        open_box(BOX, "ADNC", tmp_path / "other", [], tmp_path)


def test_a_search_leaves_the_box_shut(tmp_path: Path) -> None:
    words = ("split.open_lockbox=true", "task=validate")
    with pytest.raises(UserError, match="has no place in a search"):
        tasks.run(settings(tmp_path, *words), tmp_path / "run")
    assert not (tmp_path / "cache/lockbox").exists()


def test_a_saved_split_that_holds_locked_donors_is_refused(tmp_path: Path) -> None:
    tasks.run(settings(tmp_path, "split.lockbox=0.0", "evaluation.baselines=false"), tmp_path / "run")
    with pytest.raises(UserError, match=r"puts \d+ donors of the lockbox into its folds: D\d\d, "):
        tasks.run(settings(tmp_path, f"split.file={tmp_path / 'run/split.json'}"), tmp_path / "again")


def test_a_box_that_was_not_set_aside_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"add split\.lockbox=SHARE"):
        tasks.run(settings(tmp_path, "split.lockbox=0.0", "split.open_lockbox=true"), tmp_path / "run")
