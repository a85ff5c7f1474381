"""Words of a command line, written so that they can be pasted into a shell."""

import re
import shlex
from collections.abc import Iterable

PLAIN = re.compile(r"[A-Za-z_./][\w./:+%@-]*", re.ASCII)  # what Hydra reads as it stands,
OTHER = re.compile(r"true|false|null|[+-]?(nan|inf)|[\d.]+(e[+-]?\d+)?", re.IGNORECASE)  # if not as a value


def command_of(words: Iterable[str]) -> str:
    """`python run.py …`, quoted for a shell."""
    return shlex.join(["python", "run.py", *words])


def word(field: str, value: object) -> str:
    """`field=value`, with a value that Hydra reads as the same text."""
    text = str(value)
    plain = PLAIN.fullmatch(text) and not OTHER.fullmatch(text)
    return f"{field}={text if plain else quoted(text)}"


def quoted(text: str) -> str:
    """A text in the quotes of Hydra's grammar, where only backslashes before a quote count."""
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'"{escaped}"'
