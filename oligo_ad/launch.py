"""Environment variables: those of a launcher count, and what a shell left behind is removed."""

import io
import os
import sys

from oligo_ad.errors import UserError

# By these a process knows its place among those that torchrun or accelerate launch has started.
PLACE = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Accelerate reads these too, and would wait for processes that are not there.
OTHERS = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORK_LAUNCHED")
MPI = ("PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_")
ALONE = {"SIZE": ("", "0", "1"), "RANK": ("", "0", "-1")}  # values that a single process may have
PATHS = ("HOME", "OLIGO_AD_CACHE")
# Of a shell or a notebook: the first would run other code to draw, the second gives a run another name.
REMOVED = ("MPLBACKEND", "HYDRA_MAIN_MODULE")

# Threads that have nothing to do sleep: beside other programs they would burn the time of those that work.
WAITING = ("OMP_WAIT_POLICY", "PASSIVE")


def world_size() -> int:
    """How many processes share the run; 1 unless torchrun or accelerate launch has started more."""
    value = os.environ.get("WORLD_SIZE", "1")
    return int(value) if value.isdecimal() and int(value) > 1 else 1


def is_first_process() -> bool:
    """Whether this process writes and speaks for the others; RANK means nothing where there are none."""
    return world_size() == 1 or os.environ.get("RANK") == "0"


def settle_environment() -> list[str]:
    """Remove variables that would redirect a run or make it wait for others; returns what to tell the user.

    Raises:
        UserError: several processes are announced, and this one has no place among them.
    """
    for name in PATHS:
        if not os.environ.get(name, name).strip():
            del os.environ[name]
    for name in REMOVED:
        os.environ.pop(name, None)
    os.environ.setdefault(*WAITING)
    if (size := world_size()) > 1:
        _check_place(size)
        return []
    left = [name for name in os.environ if name.startswith(MPI) or name in (*PLACE, *OTHERS)]
    values = {name: os.environ.pop(name) for name in left}
    told = [f"{name}={value}" for name, value in values.items() if _announces_others(name, value)]
    if not told:
        return []
    return [
        f"{', '.join(told)} in the environment has no effect: this is a single process. Several share a run "
        "when torchrun or accelerate launch starts them"
    ]


def write_any_text() -> None:
    """Start again in UTF-8 where the locale is ASCII; a terminal shows what it lacks as an escape.

    Otherwise no file could be named, and no class, by other letters.
    """
    if sys.getfilesystemencoding() == "ascii":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _announces_others(name: str, value: str) -> bool:
    """Whether a variable says that there are other processes."""
    kind = name.rpartition("_")[2]
    return kind in ALONE and value not in ALONE[kind]


def _check_place(size: int) -> None:
    missing = [name for name in PLACE if not os.environ.get(name)]
    rank = os.environ.get("RANK", "")
    if not missing and rank.isdecimal() and int(rank) < size:
        return
    wrong = f"{', '.join(missing)} is not" if missing else f"RANK={rank} is none of them"
    raise UserError(
        f"WORLD_SIZE={size} is set in the environment, and {wrong}: start several processes by torchrun or "
        "accelerate launch; for a single one, `unset WORLD_SIZE`."
    )
