"""What a shell has left behind decides nothing unsaid: variables, the locale, programs, a matplotlibrc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oligo_ad import launch
from oligo_ad.results.environment import _commit, trusted_program
from oligo_ad.sweeps.sweep import sweep
from oligo_ad.training import machine
from tests.builders import CONF, answer, assert_says, atlas, configuration, write

PLACE = {"RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
READ = (
    *launch.PLACE, *launch.OTHERS, *launch.PATHS, *launch.REMOVED, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE",
    "OMP_WAIT_POLICY",
)  # fmt: skip


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any of these, put back at the end."""
    for name in READ:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_threads_sleep_while_they_wait_unless_the_user_wants_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch.settle_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    launch.settle_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_policy_is_set_before_any_library_reads_it() -> None:
    loaded = "import sys, oligo_ad.command; print('torch' in sys.modules, 'sklearn' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True).split() == ["False", "False"]


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "1"},
        {"LOCAL_RANK": "3"},
        {"WORLD_SIZE": "many", "RANK": "2"},
        {"PMI_SIZE": "4"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    ],
    ids=str,
)
def test_a_single_process_is_the_first_whatever_is_left_of_others(
    left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    (said,) = launch.settle_environment()
    assert_says(said, "no effect", "single process")
    assert not set(left) & set(os.environ)
    assert launch.is_first_process()
    assert launch.settle_environment() == []


@pytest.mark.parametrize("world_size", [None, "", "0", "1"])
def test_a_place_means_nothing_where_there_are_no_others(
    world_size: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever calls a task himself has settled nothing before."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world_size is not None:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    assert launch.is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not launch.is_first_process()


def test_a_single_process_of_torchrun_is_nothing_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (PLACE | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}).items():
        monkeypatch.setenv(name, value)
    assert launch.settle_environment() == []
    assert "LOCAL_RANK" not in os.environ


def test_several_processes_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (PLACE | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert launch.settle_environment() == []
    assert (launch.world_size(), launch.is_first_process()) == (2, False)
    assert os.environ["RANK"] == "1"


@pytest.mark.parametrize(
    ("changed", "told"), [({"RANK": ""}, "RANK is not"), ({"RANK": "2"}, "RANK=2 is none of them")]
)
def test_processes_that_are_announced_and_not_there_are_not_waited_for(
    changed: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (PLACE | {"WORLD_SIZE": "2"} | changed).items():
        monkeypatch.setenv(name, value)
    assert_says(answer(launch.settle_environment), "WORLD_SIZE=2", told, "unset WORLD_SIZE")


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_path_is_none(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in launch.PATHS:
        monkeypatch.setenv(name, empty)
    launch.settle_environment()
    assert not set(launch.PATHS) & set(os.environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "inductor"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
    ],
)
def test_the_configuration_wins_over_the_environment_and_says_so(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    accelerator, _ = machine.make_accelerator(configuration("device=cpu"), tmp_path)
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert accelerator.state.dynamo_plugin.backend.value.lower() == "no"
    assert_says(caplog.text, f"{name}={value}", "no effect")
    assert name not in os.environ


def test_what_accelerate_launch_always_sets_is_no_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {
        "MIXED_PRECISION": "no",
        "DYNAMO_BACKEND": "NO",
        "GRADIENT_ACCUMULATION_STEPS": "1",
        "USE_CPU": "False",
    }
    for name, value in usual.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    machine.make_accelerator(configuration("device=cpu"), tmp_path)
    assert caplog.messages == []


def test_a_sweep_is_started_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = answer(lambda: sweep(None, None, None, []))  # type: ignore[arg-type]
    assert_says(said, "2 processes", "leave out torchrun", "joblib")


def test_programs_are_not_looked_up_where_anybody_may_put_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/RAN\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    honest = trusted_program("git")
    for entries in (["bin"], ["."], [""], [str(program.parent)], [str(tmp_path / "bin/../bin")]):
        monkeypatch.setenv("PATH", os.pathsep.join([*entries, "/usr/bin", "/bin"]))
        assert trusted_program("git") == honest
        _commit()
    assert not (tmp_path / "RAN").exists()


def test_the_commit_is_that_of_the_source_whatever_repository_git_is_pointed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert _commit() == before


@pytest.mark.slow
def test_a_run_in_a_plain_locale_beside_a_foreign_matplotlibrc_is_whole(tmp_path: Path) -> None:
    """Names with letters of any language, and an environment of a notebook."""
    adata = atlas(effect=0.3)
    adata.obs["ADNC"] = adata.obs["ADNC"].astype(str).replace("High", r"Hoch $\frac{1$ – é β")
    path = write(adata, tmp_path, "größe.h5ad")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    small = "data=sea_ad data.min_genes=1 data.min_nuclei=2 fit.epochs=1 tracker=none"
    words = [f"data.path='{path}'", r'data.positive="Hoch $\frac{1$ – é β"', "model.featurizer.n_genes=30"]
    ran = subprocess.run(
        [sys.executable, CONF.parent / "run.py", *small.split(), *words, "hydra.run.dir=run"],
        cwd=tmp_path,
        env=os.environ
        | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MPLBACKEND": "nonsense", "HOME": ""}
        | {"OLIGO_AD_CACHE": str(tmp_path / "cache"), "PYTHONIOENCODING": ""},
        capture_output=True,
        timeout=200,
    )
    said = (ran.stdout + ran.stderr).decode(errors="replace")
    assert ran.returncode == 0, said
    assert "Traceback" not in said
    assert "cannot be drawn" not in said
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert_says(page, r"Hoch $\frac{1$ – é β", "größe.h5ad", 'alt="donor scores"')
    assert "Not drawn" not in page
    assert "report: run/report.html" in (tmp_path / "run/run.log").read_text(encoding="utf-8")
