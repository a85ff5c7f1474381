"""The picture of donors and nuclei from the file to the test, in the manner of a CONSORT diagram.

Laid out from top to bottom in inches: a box a step in the left column, beside the gap between two steps what
the later one leaves out, and below all the parts of a fold.
"""

import textwrap
from itertools import pairwise
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from oligo_ad.errors import listing
from oligo_ad.results.plots import GREY, NEGATIVE, POSITIVE
from oligo_ad.results.sentences import RunSummary

WIDTH = 7.0  # inches; as an SVG 672 pixels
LINE, PAD, GAP = 0.16, 0.09, 0.34  # height of a line, above and below the lines of a box, between two steps
FONT, SIGNS = 8.5, 14  # size in points; so many signs an inch, in letters of ordinary width
HEAD = 0.3  # above the first step, for the stamp of a picture
MOST_LINES = 3  # of one name
DARK = "#333333"
TIED = "\N{NO-BREAK SPACE}"  # between a number and what it counts
GROUPS = {"positive": POSITIVE, "negative": NEGATIVE, "excluded": DARK}  # classes of a step, by colour


class Line(NamedTuple):
    """A line of text."""

    text: str
    colour: str = DARK
    weight: str = "normal"


class Box(NamedTuple):
    """Lines in a frame; `x`, its left edge, `width` and `top` in inches, `top` counted downwards."""

    x: float
    width: float
    top: float
    lines: list[Line]

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 2 * PAD

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def flow(run: RunSummary) -> Figure:
    """Donors and nuclei by class after each step of the selection, and in the parts of a fold."""
    steps, left_out, parts = layout(run)
    height = max(box.bottom for box in parts) + 0.1
    figure = Figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")  # boxes have their places
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    for box in (*steps, *left_out, *parts):
        _draw(axes, box)
    for box, after in pairwise(steps):
        _arrow(axes, (box.middle, box.bottom), (box.middle, after.top))
    for box in left_out:
        level = (box.top + box.bottom) / 2
        _arrow(axes, (steps[0].middle, level), (box.x, level))
    fork = steps[-1].bottom + GAP / 2
    axes.plot([steps[-1].middle] * 2, [steps[-1].bottom, fork], color=GREY, lw=1)
    axes.plot([parts[0].middle, parts[-1].middle], [fork, fork], color=GREY, lw=1)
    for box in parts:
        _arrow(axes, (box.middle, fork), (box.middle, box.top))
    return figure


def layout(run: RunSummary) -> tuple[list[Box], list[Box], list[Box]]:
    """The boxes of the steps, of what they leave out, and of the parts of a fold; none lies on another."""
    table = pd.DataFrame(run.record.facts.flow)
    names = list(table["step"].drop_duplicates())
    counts = [_counts(table[table["step"] == name]) for name in names]
    steps: list[Box] = []
    left_out: list[Box] = []
    top = free = HEAD  # `free`: from where on the right column is empty
    for place, (name, own) in enumerate(zip(names, counts, strict=True)):
        lost = counts[place - 1] - own if place else own * 0
        if lost.to_numpy().any():
            aside = Box(4.72, 2.18, 0.0, _lost(run, lost, is_box=place + 1 == len(names)))
            level = max(top + GAP / 2, free + aside.height / 2)
            left_out.append(aside._replace(top=level - aside.height / 2))
            top, free = level + GAP / 2, level + aside.height / 2 + PAD
        elif place:
            top += GAP
        steps.append(Box(0.1, 4.2, top, [*_wrapped(name, 4.2, DARK, "bold"), *_by_class(run, own, 4.2)]))
        top = steps[-1].bottom
    return steps, left_out, _parts(run, max(top + 1.3 * GAP, free))


def _counts(own: pd.DataFrame) -> pd.DataFrame:
    """Donors and nuclei of the groups after one step, 0 where it does not name a group."""
    return own.groupby("class")[["donors", "nuclei"]].sum().reindex(list(GROUPS), fill_value=0)


def _by_class(run: RunSummary, counts: pd.DataFrame, width: float) -> list[Line]:
    negative, positive = run.class_names
    names = {"positive": positive, "negative": negative, "excluded": "other or missing label"}
    lines = []
    for group, colour in GROUPS.items():
        donors, nuclei = counts.loc[group]
        if donors or nuclei:
            lines += _wrapped(f"{names[group]}: {_amount(donors, nuclei)}", width, colour)
    return lines


def _amount(donors: int, nuclei: int) -> str:
    of_donors = [f"{donors:,}{TIED}donor{'s' * (donors != 1)}"] if donors else []
    return ", ".join([*of_donors, f"{nuclei:,}{TIED}nuclei"])


def _lost(run: RunSummary, lost: pd.DataFrame, is_box: bool) -> list[Line]:
    """What a step leaves out; `is_box`: it is the last, which sets the lockbox aside where there is one."""
    facts, width = run.record.facts, 2.18
    title = "left out"
    if facts.locked and is_box:
        title = f"in the lockbox, {'opened by this run' if facts.box_is_open else 'not opened'}"
    lines = [*_wrapped(title, width, DARK, "bold"), *_by_class(run, lost, width)]
    if lost.loc["excluded", "donors"] and not lost.loc[["positive", "negative"]].to_numpy().any():
        values = listing([f"{row['value']} {row['donors']}" for row in facts.excluded], 6)
        lines += _wrapped(f"donors by label: {values}", width) if values else []
    return lines


def _parts(run: RunSummary, top: float) -> list[Box]:
    """Fewest and most donors and nuclei of each class in the parts of a fold, side by side."""
    table = run.parts
    n = table["fold"].nunique()
    width, boxes = 2.16, []
    for place, (part, own) in enumerate(table.groupby("part", sort=False)):
        title = f"{part}, {'the one fold' if n == 1 else f'each of {n} folds'}"
        lines = _wrapped(title, width, DARK, "bold")
        for label, colour in ((1, POSITIVE), (0, NEGATIVE)):
            of_class = own[own["label"] == label]
            lines += _wrapped(
                f"{run.class_names[label]}: {_span(of_class['donors'], 'donors')}, "
                f"{_span(of_class['nuclei'], 'nuclei')}",
                width,
                colour,
            )
        boxes.append(Box(0.1 + place * (width + 0.16), width, top, lines))
    most = max(len(box.lines) for box in boxes)
    return [box._replace(lines=box.lines + [Line("")] * (most - len(box.lines))) for box in boxes]


def _span(counts: pd.Series, what: str) -> str:
    low, high = counts.min(), counts.max()
    one = what.removesuffix("s") if high == 1 else what
    return TIED.join([f"{low:,}", *([] if low == high else ["to", f"{high:,}"]), one])


def _wrapped(text: str, width: float, colour: str = DARK, weight: str = "normal") -> list[Line]:
    """Lines that fit into a box; of a name without end, its beginning."""
    shown = "".join(sign if sign.isprintable() or sign == TIED else " " for sign in text)
    lines = textwrap.wrap(shown, int((width - 2 * PAD) * SIGNS), max_lines=MOST_LINES, placeholder=" …")
    return [Line(line, colour, weight) for line in lines]


def _draw(axes: Axes, box: Box) -> None:
    frame = FancyBboxPatch(
        (box.x, box.top), box.width, box.height, boxstyle="round,pad=0,rounding_size=0.05",
        facecolor="white", edgecolor=GREY, lw=1, zorder=2,
    )  # fmt: skip
    axes.add_patch(frame)
    for place, line in enumerate(box.lines):
        axes.text(
            box.x + PAD, box.top + PAD + LINE * (place + 0.5), line.text, fontsize=FONT, color=line.colour,
            weight=line.weight, va="center", zorder=3, clip_path=frame, clip_on=True,
        )  # fmt: skip


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": GREY, "shrinkA": 0, "shrinkB": 0})
