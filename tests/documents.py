"""The commands in the documents."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


def commands() -> list[str]:
    """Every command of the documents, each once: lines of bash blocks, and programs named in a line."""
    return list(dict.fromkeys(text for document in DOCUMENTS for text in _commands(document)))


def _commands(document: Path) -> Iterator[str]:
    for block in blocks(document, "bash"):
        for line in block.splitlines():
            if command := re.sub(r"(^|\s+)#.*", "", line).strip():
                yield command
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    for inline in re.findall(r"`((?:python|accelerate launch|tensorboard) [^`]+)`", prose):
        yield " ".join(inline.split())
