"""Donors of the lockbox are chosen by their id alone, take no part in anything, and are scored once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad import tasks
from oligo_ad.config import Config
from oligo_ad.data.cache import clear
from oligo_ad.data.contrast import open_contrast
from oligo_ad.data.lockbox import is_locked, locked_donors, note, open_box
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from tests import builders

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
    assert "donors are in the lockbox" in note(box, ("Not AD", "High"))
    assert "it can show nothing" in note(box[box == 1], ("Not AD", "High"))
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
    contrast = open_contrast(config.data, config.split, config.metadata, tmp_path / "cache")
    locked = set(contrast.box.index)
    assert len(locked) > 3
    assert not locked & set(contrast.cohort.donors.index)
    assert not locked & set(contrast.labels.donors)
    assert not locked & {donor for fold in contrast.folds for own in fold.parts.values() for donor in own}
    assert contrast.flow["step"].iloc[-1] == "not in the lockbox"
    last = contrast.flow.tail(3).set_index("class")["donors"]
    assert last["positive"] + last["negative"] == 26 - len(locked)
    assert any("lockbox" in remark for remark in contrast.notes)
    both = contrast.with_box()
    assert set(both.labels.donors) == locked | set(contrast.labels.donors)


def test_a_run_that_leaves_the_box_shut_does_not_depend_on_who_is_in_it(tmp_path: Path) -> None:
    config = settings(tmp_path)
    tasks.run(config, tmp_path / "one")
    locked = set(Record(tmp_path / "one").facts.locked)
    adata = builders.atlas(14, 12, nuclei=16, effect=0.5)
    mine = adata.obs["Donor ID"].isin(locked).to_numpy()
    adata.X = sp.csr_matrix(np.where(mine[:, None], 3, adata.X.toarray()).astype(np.float32))
    (tmp_path / "other").mkdir()
    builders.write(adata, tmp_path / "other")
    tasks.run(settings(tmp_path / "other", f"cache.dir={tmp_path / 'cache2'}"), tmp_path / "two")
    runs = [Record(tmp_path / name) for name in ("one", "two")]
    for table in ("predictions", "baselines"):
        pd.testing.assert_frame_equal(*(getattr(run, table) for run in runs), check_exact=True)
    assert runs[0].lockbox is None
    assert "were not scored" in (tmp_path / "one/report.html").read_text()


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
    with pytest.raises(UserError, match=r"was opened on .* by .*run: a second look"):
        tasks.run(config, tmp_path / "again")
    assert not (tmp_path / "again/folds").exists()


def test_the_same_run_may_open_it_again_and_another_box_is_another(tmp_path: Path) -> None:
    box = locked_donors(LABEL, 0.3)
    open_box(box, "ADNC", tmp_path / "run", ["seed=1"], tmp_path)
    open_box(box, "ADNC", tmp_path / "run", ["seed=1"], tmp_path)
    open_box(box.iloc[1:], "ADNC", tmp_path / "other", [], tmp_path)
    with pytest.raises(UserError, match="a second look"):
        open_box(box, "ADNC", tmp_path / "other", [], tmp_path)


def test_a_box_that_was_not_set_aside_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"add split\.lockbox=SHARE"):
        tasks.run(settings(tmp_path, "split.lockbox=0.0", "split.open_lockbox=true"), tmp_path / "run")
