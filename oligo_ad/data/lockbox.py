"""The lockbox: donors that are set aside before anything is looked at, and scored once.

Whether a donor is in it depends on a hash of its id alone, so it is the same for every split, seed and subset
of the file. A register in the cache's directory keeps when it was opened and by which run. It is a reminder
and a record, no safe: whoever deletes it, or works on another machine, can open the box again.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path

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


def note(box: pd.Series, names: tuple[str, str]) -> str:
    """Whom the box holds, for the user. `names`: of the negative and the positive class."""
    counts = [f"{int((box == value).sum())} {names[value]}" for value in (1, 0)]
    text = f"{len(box)} donors are in the lockbox ({', '.join(counts)}), in no fold: {listing(box.index, 6)}"
    few = [names[value] for value in (1, 0) if (box == value).sum() < 2]
    return f"{text}. With fewer than 2 of {listing(few)} it can show nothing" if few else text


def open_box(box: pd.Series, column: str, run: Path, words: list[str], cache: Path) -> None:
    """Enter in the register that a run opens the box.

    Args:
        box: labels of its donors, by id.
        column: of the label.
        run: its directory.
        words: of its command line.
        cache: the cache's directory.

    Raises:
        UserError: another run has opened it.
    """
    content = "\n".join([column, *map(str, sorted(box.index))])
    file = cache / REGISTER / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    with locked(file):
        if file.exists():
            first = json.loads(file.read_text(encoding="utf-8"))
            if first["run"] != str(run.absolute()):
                raise UserError(
                    f"the lockbox of these {len(box)} donors was opened on {first['when']} by "
                    f"{first['run']}: a second look makes its donors ordinary test donors. "
                    f"The record is {file}."
                )
            return
        write_json(
            file,
            {
                "when": datetime.now().astimezone().isoformat(timespec="seconds"),
                "run": str(run.absolute()),
                "words": words,
                "label column": column,
                "donors": [str(donor) for donor in sorted(box.index)],
            },
        )
