"""However a sweep ends, it leaves a leaderboard of what there is, and says how it ended."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins

from oligo_ad.record import Record
from oligo_ad.sweeps import sweep
from oligo_ad.sweeps.trials import BEST, Trial
from tests.builders import CONF, answer, assert_says
from tests.sweeps.test_compare import run_folder, scores

Start = Callable[..., None]
WORDS = ["model=a,b,c"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a sweep of three trials in `tmp_path`; `endings` are what becomes of each."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"hydra.sweep.dir={tmp_path / 'sweep'}"], return_hydra_config=True)
    loader = SimpleNamespace(load_sweep_config=lambda *given: None)
    trials = [Trial(str(n), [f"model={name}"]) for n, name in enumerate("abc")]
    monkeypatch.setattr(sweep, "grid", lambda *given: trials)

    def started(endings: list[Callable[[Path], Any]], resume: str | None = None) -> None:
        config.sweep.resume = resume
        arguments = [*WORDS, f"sweep.resume={resume}"] if resume else WORDS

        def launch(jobs: Sequence[Sequence[str]], initial_job_idx: int) -> None:
            for job in jobs:
                number = job[-1].partition("=")[2]
                endings[int(number)](tmp_path / "sweep" / number)

        launcher = SimpleNamespace(launch=launch)
        monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *given, **named: launcher)
        sweep.sweep(SimpleNamespace(config_loader=loader), None, config.copy(), arguments)  # type: ignore[arg-type]

    return started


def finishes(place: Path) -> None:
    run_folder(place, scores(1.0, seed=len(place.name)), f"model={place.name}")


def fails(place: Path) -> None:
    place.mkdir()
    Record(place).write_failure("it was too large")


def dies(place: Path) -> None:
    place.mkdir()


def interrupted(place: Path) -> None:
    place.mkdir()
    raise KeyboardInterrupt


def board(tmp_path: Path) -> dict[str, str]:
    """The status of each trial on the leaderboard."""
    table = pd.read_csv(tmp_path / "sweep/leaderboard.csv", dtype=str)
    return dict(zip(table["run"], table["status"], strict=True))


def test_a_sweep_whose_trials_finish_ends_without_a_word(start: Start, tmp_path: Path) -> None:
    start([finishes] * 3)
    assert board(tmp_path) == dict.fromkeys("012", "finished")


@pytest.mark.parametrize("bad", [fails, dies])
def test_a_trial_that_fails_stops_no_other_and_the_sweep_ends_with_an_error(
    bad: Callable[[Path], None], start: Start, tmp_path: Path
) -> None:
    message = answer(start, [finishes, bad, finishes])
    assert_says(message, "1 trials have no result", "leaderboard.html", f"sweep.resume={tmp_path / 'sweep'}")
    assert board(tmp_path) == {"0": "finished", "1": "failed", "2": "finished"}
    assert Record(tmp_path / "sweep/1").failure


def test_an_interrupted_sweep_stops_at_once_and_goes_on_where_it_was(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        start([finishes, interrupted, finishes])
    assert board(tmp_path)["0"] == "finished"
    assert "interrupted: the same command with" in caplog.text
    before = (tmp_path / "sweep/0/metrics.json").stat().st_mtime_ns
    start([fails, finishes, finishes], str(tmp_path / "sweep"))
    assert board(tmp_path) == dict.fromkeys("012", "finished")
    assert (tmp_path / "sweep/0/metrics.json").stat().st_mtime_ns == before


def test_what_a_search_chose_and_could_not_train_is_no_success(tmp_path: Path) -> None:
    finishes(tmp_path / "0")
    (tmp_path / BEST).mkdir()
    finishes(tmp_path / BEST / "1")
    assert sweep.conclude(tmp_path) == 0
    fails(tmp_path / BEST / "2")
    assert sweep.conclude(tmp_path) == 1
