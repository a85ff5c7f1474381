"""card.md for people, dome.json for the DOME registry."""

import re
from typing import Any

import pandas as pd

from oligo_ad.results.checklist.answers import STANDARDS, Entry, counted, entries
from oligo_ad.results.checklist.dome import DOME
from oligo_ad.results.checklist.items import Status
from oligo_ad.results.sentences import RunSummary

# Punctuation that can be markup inside a line; what comes after it makes the last two links.
MARKUP = re.compile(r"[\\`*_\[\]{}<>|#&~$!]|(?<=\w):(?=//)|(?<=www)\.|@", re.IGNORECASE)
NOTE = (
    "What the run knows of itself. It counts what is reported, and is no mark of quality; what is unknown, "
    "or answered in part, is for people to write."
)
PUBLICATION = ("title", "authors", "journal", "year", "doi", "pmid")
UNDEFINED = "unknown"  # the registry counts a field of this word as empty


def card(run: RunSummary) -> str:
    """The content of card.md: every item of every standard, and how many are answered."""
    negative, positive = run.class_names
    lines = [f"# {plain(positive)} against {plain(negative)}, predicted by {plain(run.model)}", ""]
    lines += [f"**{plain(run.stamp)}**", ""] if run.stamp else []
    lines += [plain(run.verdict()), "", NOTE, ""]
    for standard in STANDARDS:
        found = entries(run, standard)
        lines += [f"## {standard.name}: {counted(found)}", "", standard.reference, ""]
        lines += ["| item | section | asks for | status | answer |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(map(plain, _row(entry)))} |" for entry in found]
        lines += [""]
    return "\n".join(lines)


def tables(run: RunSummary) -> dict[str, pd.DataFrame]:
    """The same for report.html: by name of the standard and its count, item by item."""
    heads, found = ["item", "section", "asks for", "status", "answer"], {}
    for standard in STANDARDS:
        own = entries(run, standard)
        found[f"{standard.name}: {counted(own)}"] = pd.DataFrame(map(_row, own), columns=heads)
    return found


def _row(entry: Entry) -> tuple[str, ...]:
    item = entry.item
    left = f". To add: {item.add}" if item.add and item.answer else ""
    return item.number, entry.section, item.label, entry.status.value, f"{entry.text}{left}"


def plain(text: str) -> str:
    """Text that is nothing but text in Markdown, on one line."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return MARKUP.sub(lambda found: f"\\{found[0]}", line)


def dome(run: RunSummary) -> dict[str, Any]:
    """The content of dome.json: the fields of the DOME registry, and what people must add to each.

    As in the registry (`dome-registry-core`, review.ts) every section counts in `done` the fields that say
    something, in `skip` the others, which hold the word `unknown`.
    """
    found, own = entries(run, DOME), run.record.facts.environment
    sections = {section: _section(found, section) for section in DOME.sections}
    left: dict[str, dict[str, str]] = {}
    for entry in found:
        if entry.item.add:
            left.setdefault(entry.section, {})[entry.item.number] = entry.item.add
    return {
        "stamp": run.stamp,
        "recommendations": f"{DOME.name}: {DOME.reference}",
        "program": {
            "name": "oligo_ad",
            "version": own.get("oligo_ad", UNDEFINED),
            "commit": own.get("git commit", UNDEFINED),
        },
        "publication": dict.fromkeys(PUBLICATION, UNDEFINED) | {"tags": [], **_count(0, len(PUBLICATION))},
        **sections,
        "to_add": left,
    }


def _section(found: list[Entry], section: str) -> dict[str, Any]:
    says = (Status.ANSWERED, Status.PART, Status.NOT_APPLICABLE)
    fields = {
        entry.item.number: entry.text if entry.status in says else UNDEFINED
        for entry in found
        if entry.section == section
    }
    n = sum(value != UNDEFINED for value in fields.values())
    return fields | _count(n, len(fields) - n)


def _count(done: int, skip: int) -> dict[str, int]:
    return {"done": done, "skip": skip}
