"""The lockbox: donors that are set aside before anything is looked at, and scored once.

Whether a donor is in it depends on a hash of its id alone, so it is the same for every split, seed and subset
of the file. A register in the cache's directory keeps when it was opened and by which run. It is a reminder
and a record, no safe: whoever deletes it, or works on another machine, can open the box again.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from oligo_ad.errors import UserError, listing
from oligo_ad.storage.shelf import locked, write_json

REGISTER = "lockbox"  # a folder of the cache; emptying the cache leaves it


def is_locked(donor: str, share: float) -> bool:
    """Whether a donor is among this share of all possible ids."""
    return int.from_bytes(hashlib.sha256(donor.encode()).digest()[:8], "big") < share * 2**64


def locked_donors(label: pd.Series, share: float) -> pd.Series:
    """The labels of the donors that are set aside, by id.

    Raises:
        UserError: no donor of a class would be left.
    """
    box = label[[is_locked(str(donor), share) for donor in label.index]]
    if label.drop(box.index).nunique() < 2:
        raise UserError(
            f"split.lockbox={share} leaves no donor of a class: it holds {len(box)} of {len(label)} donors. "
            "Choose a smaller share."
        )
    return box


def describe_box(box: pd.Series, names: tuple[str, str]) -> str:
    """Whom the box holds, for the user. `names`: of the negative and the positive class."""
    counts = [f"{int((box == value).sum())} {names[value]}" for value in (1, 0)]
    text = f"{len(box)} donors are in the lockbox ({', '.join(counts)}), in no fold: {listing(box.index, 6)}"
    few = [names[value] for value in (1, 0) if (box == value).sum() < 2]
    return f"{text}. With fewer than 2 of {listing(few)} it can show nothing" if few else text


def open_box(
    box: pd.Series, column: str, run: Path, words: list[str], cache: Path, simulated: str = ""
) -> None:
    """Enter in the register that a run opens the box.

    Args:
        box: labels of its donors, by id.
        column: of the label.
        run: its directory.
        words: of its command line.
        cache: the cache's directory.
        simulated: the name of a simulated file, whose ids name other donors in every file.

    Raises:
        UserError: another run has scored some of these donors, or the register cannot be used.
    """
    donors = sorted(str(donor) for donor in box.index)
    content = "\n".join([simulated, column, *donors])
    file = cache / REGISTER / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    own = {"run": str(run.absolute()), "label column": column, "simulated": simulated, "donors": donors}
    with _register(file.parent):
        for other in sorted(file.parent.glob("*.json")):
            _check_unseen(own, other)
        if not file.exists():
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            write_json(file, {"when": now, **own, "words": words})


@contextmanager
def _register(folder: Path) -> Iterator[None]:
    """Keep every other process from the register.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with locked(folder / "register"):
            yield
    except OSError as error:
        raise UserError(f"the register of lockboxes, {folder}, cannot be used: {error}.") from error


def _check_unseen(own: dict[str, Any], entry: Path) -> None:
    """Refuse to score donors that another run has scored.

    Raises:
        UserError: naming that run.
    """
    try:
        first = json.loads(entry.read_text(encoding="utf-8"))
        seen = set(own["donors"]) & set(first["donors"])
        same = all(own[name] == first[name] for name in ("label column", "simulated"))
        when, run = first["when"], first["run"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{entry}, which tells when a lockbox was opened, is damaged ({type(error).__name__}: {error}). "
            "Write it anew from a backup, or move it away and say so where you report the result."
        ) from None
    if same and seen and run != own["run"]:
        raise UserError(
            f"the lockbox was opened on {when} by {run}, which scored {len(seen)} of its "
            f"{len(own['donors'])} donors: scored again, they are ordinary test donors. Take the result of "
            "that run, or leave split.open_lockbox out. (If that run broke off, start it again in its "
            f"directory. {entry} holds the record.)"
        )
