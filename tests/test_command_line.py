"""What a user types: every file of conf/ composes, and a task or a sweep is asked for in the right words."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from pkgutil import resolve_name

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from oligo_ad import command, config, tasks
from oligo_ad.models.pretrained import read_pretrained
from oligo_ad.tasks import train
from tests.builders import CONF, answer, assert_says, configuration

TASKS = sorted(file.stem for file in (CONF / "task").glob("*.yaml"))
FILES = sorted(file.relative_to(CONF) for file in CONF.glob("*/*.yaml"))


def read(*overrides: str) -> config.Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return config.read(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_configuration_file_composes_and_names_components_that_exist(file: Path) -> None:
    composed = read(f"{file.parent.name}={file.stem}")
    if composed.model.reader:
        composed = read(f"{file.parent.name}={file.stem}", "model.pretrained=false")
    train._check_components(composed, read_pretrained(composed.model))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_chosen_by_its_name_and_has_its_function(name: str) -> None:
    assert read(f"task={name}").task.name == name
    assert callable(resolve_name(tasks.FUNCTIONS[name]))


def test_every_function_has_its_task() -> None:
    assert sorted(tasks.FUNCTIONS) == TASKS


def test_a_run_trains_unless_it_is_told_otherwise() -> None:
    assert read().task == config.PlainTask(name="train")


@pytest.mark.parametrize(
    "overrides", [("sweep=mlp", "sweep.trials=7"), ("task=report", "run=outputs/x"), ("task=validate",)]
)
def test_the_configuration_of_a_run_is_without_what_the_command_reads(overrides: tuple[str, ...]) -> None:
    saved = asdict(read(*overrides))
    assert not set(config.COMMAND_FIELDS) & set(saved)
    assert config.read(OmegaConf.create(saved)) == read(*overrides)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+sweep.trails=3"], ["sweep.trails=3", "Did you mean 'trials'?"]),
        (["sweep.trials=many"], ["sweep.trials=many", "valid integer"]),
        (["sweep.objective=los"], ["sweep.objective=los", "Did you mean 'loss'?"]),
        (["sweep.seeds=[]"], ["sweep.seeds", "at least 1"]),
        (["task.name=trian"], ["task=trian", "Did you mean 'train'?"]),
        (["task=validate", "+task.objectiv=loss"], ["task.objectiv=loss", "Did you mean 'objective'?"]),
        (["task=validate", "task.seeds=[0,-1]"], ["task.seeds.1=-1", "greater than or equal to 0"]),
        (["+data.simulation.nucleii=3"], ["data.simulation.nucleii=3", "Did you mean 'nuclei'?"]),
    ],
)
def test_a_field_of_a_sweep_or_a_task_that_is_wrong_is_named(overrides: list[str], told: list[str]) -> None:
    assert_says(answer(read, *overrides), *told)


def test_a_space_is_given_in_a_file_or_on_the_command_line() -> None:
    added = "+sweep.space.fit.epochs='range(1,4)'"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        space = config.read_sweep(compose("config", overrides=["sweep=mlp", added])).space
    assert space["fit.epochs"] == "range(1,4)"
    assert space["fit.batch_size"] == "choice(64, 128, 256)"


def test_a_report_without_a_run_is_refused_with_what_to_type(tmp_path: Path) -> None:
    said = answer(tasks.run, read("task=report"), tmp_path)
    assert_says(said, "task=report", "python run.py task=report run=DIR")


def typed(*arguments: str) -> str:
    """What `python run.py` answers to a mistake."""
    ended = subprocess.run(
        [sys.executable, "run.py", *arguments], cwd=CONF.parent, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("task=trian", "validate. Did you mean 'train'?"),
        ("sweep.trails=3", "There is no field 'sweep.trails'. Did you mean 'sweep.trials'?"),
        ("run=DIR", "run is a field of task=inspect, task=permute, task=report: add one"),
        ("-m task=inspect seed=1,2", "task=inspect is no task for a sweep"),
        ("sweep=mlp task=prepare", "task=prepare is no task for a sweep"),
        ("-m task=train,inspect", "task=train,inspect lists values"),
        ("sweep=mlp sweep.trials=3,4", "sweep.trials=3,4 lists values"),
        ("sweep=mlp sweep.trials=many", "sweep.trials=many: should be a valid integer"),
        ("data/simulation=stats", "data/simulation=stats: data/simulation is one of demo, global"),
        ("data/simulation=null", "data/simulation=null: data/simulation is one of demo, global"),
        ("data=sea_ad data/simulation=rare", "leave it out, or take data=demo"),
    ],
)
def test_a_task_or_a_sweep_that_is_mistyped_is_answered_at_once(
    tmp_path: Path, arguments: str, told: str
) -> None:
    folders = (f"hydra.run.dir={tmp_path / 'run'}", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert_says(typed(*arguments.split(), *folders), told)
    assert not list(tmp_path.iterdir())


def test_help_shows_every_task_with_its_purpose_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['run.py', '--help']; from oligo_ad.command import start; start(); "
        "print([name for name in ('torch', 'pandas', 'optuna', 'sklearn') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=CONF.parent, capture_output=True, text=True, check=True
    ).stdout
    assert shown.endswith("[]\n")
    groups = (f"task: {', '.join(TASKS)}", "data/simulation: demo, ")
    assert_says(shown, *TASKS, "Draw the report of a finished run anew", *groups)


def saved(folder: Path, settings: config.Config) -> Path:
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(settings))))
    return folder


def test_a_run_is_repeated_with_the_configuration_that_it_has_saved(tmp_path: Path) -> None:
    settings = read("model=transformer", "seed=3", "split=cv")
    assert command._saved(str(saved(tmp_path, settings)), [f"rerun={tmp_path}"]) == settings


def test_a_trial_of_a_search_is_repeated_without_its_study(tmp_path: Path) -> None:
    trial = read("task=validate", "task.study=gone.db", "task.trial=4", "task.seeds=[1,2]")
    again = command._saved(str(saved(tmp_path, trial)), [f"rerun={tmp_path}"])
    assert again == replace(trial, task=read("task=validate", "task.seeds=[1,2]").task)


def test_what_cannot_be_repeated_is_refused(tmp_path: Path) -> None:
    assert_says(answer(command._saved, str(tmp_path), []), f"rerun={tmp_path}", "no finished run")
    (tmp_path / "config.yaml").write_text("task: train\n")
    assert_says(answer(command._saved, str(tmp_path), []), "another version", "task=train")
    assert_says(answer(command._saved, str(tmp_path), ["rerun=x", "seed=3"]), "seed=3 has no use")


def test_metadata_on_and_off_are_words_not_booleans() -> None:
    assert read("metadata=on").metadata.columns == ("age", "sex", "apoe4", "apoe2")
    assert read("metadata=off").metadata.columns == ()


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("model.encoder.n_genes=50", "model.featurizer.n_genes=50"),
        (
            "+sweep.space.model.encoder.n_genes=choice(5,6)",
            "+sweep.space.model.featurizer.n_genes=choice(5,6)",
        ),
        ("~model.encoder.n_genes", "~model.featurizer.n_genes"),
        ("model.network.gradient_checkpointing=true", "model.adapt.recompute=true"),
        ("data.path=model.encoder.h5ad", "data.path=model.encoder.h5ad"),
        ("model.encoders=1", "model.encoders=1"),
    ],
)
def test_a_field_under_its_old_name_is_taken_and_its_new_name_is_shown(
    typed: str, understood: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command._renamed(typed) == understood
    assert ("now" in capsys.readouterr().err) == (typed != understood)


def test_a_field_that_is_gone_is_ignored_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=mlp", "evaluation.bootstrap=500", "++evaluation.bootstrap=1", "seed=1"]
    assert command._without_removed(words) == ["model=mlp", "seed=1"]
    assert_says(capsys.readouterr().err, "evaluation.bootstrap=500 is ignored", "computed from the donors")


def test_a_run_saved_with_a_field_that_is_gone_is_still_read() -> None:
    saved = asdict(configuration())
    saved["evaluation"]["bootstrap"] = 2000
    assert config.read_plain(saved) == configuration()
