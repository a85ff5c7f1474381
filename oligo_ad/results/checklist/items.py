"""An item of a reporting standard, and what a run can say to it."""

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """How far a run answers an item."""

    ANSWERED = "answered"
    PART = "in part"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not applicable"


class Answer(NamedTuple):
    """What a run says to a question: facts of this run, and nothing that it cannot know."""

    text: str
    status: Status = Status.ANSWERED


class Item(NamedTuple):
    """An item: `number` as in the standard, `label` what it asks for, in our words.

    `answer`: the question in `answers.py` that answers it, empty where a run knows nothing of it. `add`: what
    a person has to write, empty where the run's answer is whole.
    """

    number: str
    label: str
    answer: str = ""
    add: str = ""


class Standard(NamedTuple):
    """A reporting standard: its items by section, in its own order."""

    name: str
    reference: str
    sections: dict[str, tuple[Item, ...]]

    @property
    def items(self) -> list[Item]:
        """Every item, in order."""
        return [item for items in self.sections.values() for item in items]


def not_done(how: str) -> Answer:
    """Nothing that a run must do; `how` it could be had."""
    return Answer(how, Status.NOT_DONE)


def unknown(what: str) -> Answer:
    """The record does not hold it; `what` a person must look up."""
    return Answer(what, Status.UNKNOWN)


def not_applicable(why: str) -> Answer:
    """There is nothing to report."""
    return Answer(why, Status.NOT_APPLICABLE)
