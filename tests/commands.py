"""How each command of the documents is run on small data."""

import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

import anndata as ad

from oligo_ad.record import Record
from oligo_ad.storage.atlas import open_atlas
from tests.builders import atlas, scgpt_folder, write
from tests.documents import DOCUMENTS, README, ROOT, blocks

CI = ROOT / ".ci" / "run"
TIMEOUT = 300
# What programs write that run beside others; commands import the package that is tested.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# A process that has imported what commands need, and forks for each: starting anew takes eight seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["oligo_ad.tasks.train", "oligo_ad.tasks.validate", "oligo_ad.sweeps.search", "optuna", "scanpy"]
)


@dataclass(frozen=True)
class Workplace:
    """A folder with everything that the documents name: FILE.h5ad, scGPT_human, my, RUN, run.py."""

    folder: Path

    def python(self, *words: str) -> str:
        """What `python WORDS` prints; it must end well."""
        code, printed = python(words, self.folder, self.folder / "output.txt", self._environment)
        assert code == 0, f"python {shlex.join(words)}\n{printed[-3000:]}"
        return printed

    def shell(self, command: str, folder: Path | None = None) -> str:
        """What a command prints in bash; it must end well."""
        ended = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=folder or self.folder,
            env=os.environ | self._environment | {"PATH": TOOLS},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout[-1000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "OLIGO_AD_CACHE": str(self.folder / "cache"), "HOME": str(self.folder)}


def python(
    words: Sequence[str], folder: Path, output: Path, environment: dict[str, str]
) -> tuple[int | None, str]:
    """`python WORDS` in a folder: its exit code, and what it prints, which is in the file `output` then."""
    process = FORKS.Process(target=_python, args=(words, folder, output, environment))
    process.start()
    process.join(TIMEOUT)
    process.kill()
    process.join()
    return process.exitcode, output.read_text()


def _python(words: Sequence[str], folder: Path, output: Path, environment: dict[str, str]) -> None:
    """`python WORDS` in a process that was forked for it."""
    os.chdir(folder)
    os.environ.update(environment)
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if words[0] == "-m":
        sys.argv = list(words[1:])
        sys.path.insert(0, str(folder))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


def furnish(folder: Path) -> Workplace:
    """Make a workplace in a folder."""
    place = Workplace(folder)
    for name in ("run.py", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    place.python(*small("run.py", *WHOLE), "hydra.run.dir=RUN")
    for name in ("outputs", "multirun_sweeps"):
        shutil.copytree(folder / "RUN", folder / name / "RUN")
    donors = _donors(Record(folder / "RUN").histories[0].genes)
    write(donors, folder, "FILE.h5ad")
    (simulated,) = (folder / "cache").glob("SIMULATED-*.h5ad")
    with open_atlas(simulated) as opened:
        tokens = dict.fromkeys([*opened.var("X").index, *donors.var_names])
    scgpt_folder(folder / "scGPT_human", [*tokens])
    for document in DOCUMENTS:
        for block in blocks(document, "yaml"):
            own = folder / block.splitlines()[0].removeprefix("# ")
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(block.partition("\n")[2])
    return place


def _donors(genes: list[str]) -> ad.AnnData:
    """A file with every column and value that the documents name, and with these genes among others."""
    file = atlas(
        n_positive=10,
        n_negative=8,
        effect=1.0,
        ADNC=["High"] * 7 + ["Intermediate"] * 3 + ["Not AD"] * 5 + ["Low"] * 3,
        donor_id=[f"D{number:02d}" for number in range(18)],
        diagnosis=["ASD"] * 10 + ["Control"] * 8,
        cell_type=["Microglia"] * 18,
    )
    file.var_names = [*genes, *file.var_names[len(genes) :]]
    return file


def small(command: str, *more: str) -> list[str]:
    """The words of a command of `run.py`, with what makes it short."""
    words = [re.sub(r"range\(\d+\)", "range(1)", word) for word in shlex.split(command)]
    words = [re.sub(r"^permutations=\d+$", "permutations=19", word) for word in words]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if "rerun" in given or given.get("task") in ("report", "cache", "clear_cache") or "--help" in words:
        return words
    added = [*SMALL, *(["permutations=19"] if given.get("task") == "permute" else [])]
    if given.get("data", "demo") == "demo":
        added += ["data.simulation.nuclei=1500", "data.simulation.genes=300"]
    if given.get("split") == "cv" or given.get("experiment") in ("demo_cv", "no_signal"):
        added += ["split.folds=2"]
    sweep = given.get("sweep", "mlp")
    if sweep in GRIDS:
        return [*words, *added, *SMALLER["mlp"][1:], *GRIDS[sweep], *more]
    if given.get("sweep"):
        added += ["sweep.trials=2", "sweep.startup=1"]
    return [*words, *added, *SMALLER[given.get("model", sweep)], *more]


SMALL = (
    "data.min_genes=1",
    "data.min_nuclei=2",
    "fit.epochs=1",
    "fit.batch_size=64",
    "fit.bag_size=8",
    "fit.bags=2",
    "evaluation.baselines=false",
    "tracker=none",
)
WHOLE = ("evaluation.baselines=true", "tracker=tensorboard")
PANEL = "model.featurizer.n_genes=30"
# Fields of a preset that are typed have one value instead.
GRIDS = {
    "sensitivity": ["model.featurizer.n_genes=choice(20,30)", "model.featurizer.flavor=seurat"],
    "learning_curve": ["split.train_fraction=choice(0.5,1.0)"],
}
SMALLER = {
    "mlp": [PANEL, "model.network.hidden=[16]"],
    "transformer": [PANEL, "model.network.width=16", "model.network.heads=2", "model.network.layers=1"],
    "mlp,transformer": [PANEL],
    "donor": ["model.featurizer.n_genes=200", "fit.members=2"],
    "scgpt": ["model.featurizer.max_len=32"],
    "scgpt_frozen": ["model.featurizer.featurizer.max_len=32"],
    "frozen_transformer": ["+model.featurizer.featurizer.n_genes=30", "+model.featurizer.network.width=16"],
}


def _run(place: Workplace, command: str) -> None:
    # Not among the runs that are compared and watched.
    elsewhere = [f"hydra.run.dir=others/{uuid4()}", f"hydra.sweep.dir=others/{uuid4()}"]
    words = small(command.removeprefix("python "))
    place.python(*words, *([] if "--help" in words else elsewhere))


def _accelerate(place: Workplace, command: str) -> None:
    own = small(command.removeprefix("accelerate launch "))
    place.shell(f"accelerate launch --cpu --num_processes 1 {shlex.join(own)}")


def _compare(place: Workplace, command: str) -> None:
    place.python(*shlex.split(command)[1:])
    assert (place.folder / "outputs" / "leaderboard.html").exists()


def _benchmark(place: Workplace, command: str) -> None:
    """As small as it can be; where that is still long, it says what it is for."""
    _, *words = shlex.split(command)
    one = ["--rounds", "1", "--only", "oligo_ad"]
    shorter = {
        "benchmarks/batches.py": [] if "--step" in words else one,
        "benchmarks/transformer.py": [*one, "--genes", "50", "--batch", "2"],
    }
    place.python(*words, *shorter.get(words[0], ["--help"]))


def _tensorboard(place: Workplace, command: str) -> None:
    """It starts, answers one request on this machine, and is stopped."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = ["tensorboard.main", *shlex.split(command)[1:], "--port", str(port)]
    process = FORKS.Process(
        target=_python, args=(("-m", *program), place.folder, place.folder / "board.txt", ENVIRONMENT)
    )
    process.start()
    try:
        assert _answer(f"http://127.0.0.1:{port}/data/logdir")
    finally:
        process.kill()
        process.join()


def _answer(address: str) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(address, timeout=10) as reply:
                answer: bytes = reply.read()
                return answer
        except (URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _set_up(place: Workplace, command: str) -> None:
    """CI finds the very line in the README, and runs it."""
    program = re.split(r"[ /]", command)[-1]
    found = re.search(rf"^python3 -m venv .*{re.escape(program)}$", README.read_text(), re.M)
    assert found
    assert found[0] == command
    assert 'grep -m1 "^python3 -m venv .*$1\\$" README.md' in CI.read_text()
    assert f'eval "$(command_of {program})"' in CI.read_text()


def _in_ci(place: Workplace, command: str) -> None:
    assert re.search(rf"(^|[ /\"]){re.escape(command)}\b", CI.read_text(), re.M)


def _activate(place: Workplace, command: str) -> None:
    place.shell(f"{shlex.quote(sys.executable)} -m venv --without-pip .venv && {command}")


def _hooks(place: Workplace, command: str) -> None:
    repository = place.folder / "repository"
    repository.mkdir()
    shutil.copy(ROOT / ".pre-commit-config.yaml", repository)
    place.shell(f"git init -q && {command}", repository)


def _collected(place: Workplace, command: str) -> None:
    assert "test_progress" in place.shell(f"{command} --collect-only -q tests/test_progress.py", ROOT)


# Which command is run how; the first that fits. A command without a rule fails the test.
RULES: dict[str, Callable[[Workplace, str], None]] = {
    r"python3 -m venv .*\b(run\.py|pytest)": _set_up,
    r"pytest|pre-commit run --all-files": _in_ci,
    r'pytest -m "not slow"': _collected,
    r"pre-commit install": _hooks,
    r"source \.venv/bin/activate": _activate,
    r"python run\.py( .*)?": _run,
    r"accelerate launch run\.py( .*)?": _accelerate,
    r"python -m oligo_ad\.compare .*": _compare,
    r"python (-m benchmarks\.\w+|benchmarks/\w+\.py)( .*)?": _benchmark,
    r"tensorboard --logdir \w+": _tensorboard,
}


def rule_of(command: str) -> Callable[[Workplace, str], None]:
    """How a command is run."""
    for pattern, rule in RULES.items():
        if re.fullmatch(pattern, command):
            return rule
    raise AssertionError(f"no rule in tests/commands.py runs this command: {command}")
