"""The picture of the flow shows what the record counts, in boxes that do not lie on one another."""

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import FancyBboxPatch

from oligo_ad.data.split import Fold, write_split
from oligo_ad.record import Record
from oligo_ad.results.evaluation import Evaluation
from oligo_ad.results.flow import SIGNS, WIDTH, Box, flow, layout
from oligo_ad.results.plots import NEGATIVE, POSITIVE
from oligo_ad.results.sentences import RunSummary
from tests.builders import configuration

LABEL = pd.Series([1] * 9 + [0] * 6, [f"D{n:02d}" for n in range(15)])
NUCLEI = pd.Series(1000 + 7 * np.arange(15), LABEL.index)
FOLDS = [
    Fold(
        1,
        tuple(LABEL.index[:5].append(LABEL.index[9:12])),
        ("D05", "D12"),
        ("D06", "D07", "D08", "D13", "D14"),
    ),
    Fold(2, tuple(LABEL.index[3:9].append(LABEL.index[12:15])), ("D00", "D09"), ("D01", "D02", "D10", "D11")),
]
STEPS = {
    "in the file": {"positive": (12, 9000), "negative": (8, 8000), "excluded": (5, 700)},
    "cell type Oligodendrocyte": {"positive": (10, 6000), "negative": (7, 5000), "excluded": (4, 300)},
    "label High or Not AD": {"positive": (10, 6000), "negative": (7, 5000), "excluded": (0, 0)},
    "quality": {"positive": (9, 5900), "negative": (6, 4900), "excluded": (0, 0)},
}


def summary(folder: Path, steps: dict[str, dict[str, tuple[int, int]]], **facts: Any) -> RunSummary:
    """A run of which only the flow and the split are known."""
    write_split(FOLDS, LABEL, configuration().split, folder / "split.json")
    rows = [
        {"step": step, "class": group, "donors": donors, "nuclei": nuclei}
        for step, groups in steps.items()
        for group, (donors, nuclei) in groups.items()
    ]
    known: dict[str, Any] = {
        "flow": rows,
        "classes": ("Not AD", "High"),
        "donor_table": pd.DataFrame({"label": LABEL, "nuclei": NUCLEI}),
        "excluded": [{"value": "Low", "donors": 4, "nuclei": 300}],
        "locked": {},
        "box_is_open": False,
    }
    record = SimpleNamespace(folder=folder, facts=SimpleNamespace(**known | facts))
    return RunSummary(cast(Record, record), cast(Evaluation, None))


def words(box: Box) -> list[str]:
    """The lines of a box, those of one colour together."""
    joined: list[tuple[str, str]] = []
    for line in box.lines:
        if joined and joined[-1][1] == line.colour + line.weight:
            joined[-1] = (f"{joined[-1][0]} {line.text}", joined[-1][1])
        else:
            joined.append((line.text, line.colour + line.weight))
    return [text.replace("\N{NO-BREAK SPACE}", " ").strip() for text, _ in joined]


def test_each_step_shows_its_donors_and_nuclei_and_what_it_left_out(tmp_path: Path) -> None:
    steps, left_out, _ = layout(summary(tmp_path, STEPS))
    assert [words(box)[0] for box in steps] == list(STEPS)
    assert words(steps[0])[1:] == [
        "High: 12 donors, 9,000 nuclei",
        "Not AD: 8 donors, 8,000 nuclei",
        "other or missing label: 5 donors, 700 nuclei",
    ]
    assert words(steps[-1])[1:] == ["High: 9 donors, 5,900 nuclei", "Not AD: 6 donors, 4,900 nuclei"]
    cell_type, label, quality = (words(box) for box in left_out)
    assert cell_type[1:3] == ["High: 2 donors, 3,000 nuclei", "Not AD: 1 donor, 3,000 nuclei"]
    assert label[1:] == ["other or missing label: 4 donors, 300 nuclei donors by label: Low 4"]
    assert quality[1:] == ["High: 1 donor, 100 nuclei", "Not AD: 1 donor, 100 nuclei"]


def test_a_step_that_leaves_out_nothing_has_no_box_beside_it(tmp_path: Path) -> None:
    same = {"in the file": STEPS["quality"], "quality": STEPS["quality"]}
    steps, left_out, _ = layout(summary(tmp_path, same))
    assert (len(steps), left_out) == (2, [])


def test_parts_show_the_fewest_and_most_of_all_folds(tmp_path: Path) -> None:
    _, _, parts = layout(summary(tmp_path, STEPS))
    assert [words(box)[0] for box in parts] == [
        f"{p}, each of 2 folds" for p in ("train", "validation", "test")
    ]
    nuclei = [int(NUCLEI[[d for d in fold.train if LABEL[d]]].sum()) for fold in FOLDS]
    assert words(parts[0])[1] == f"High: 5 to 6 donors, {min(nuclei):,} to {max(nuclei):,} nuclei"
    assert words(parts[0])[2].startswith("Not AD: 3 donors, ")
    assert words(parts[1])[1].startswith("High: 1 donor, ")


@pytest.mark.parametrize("is_open", [False, True])
def test_the_lockbox_is_no_loss_but_a_box_of_its_own(tmp_path: Path, is_open: bool) -> None:
    steps = STEPS | {"not in the lockbox": {"positive": (8, 5000), "negative": (4, 4000), "excluded": (0, 0)}}
    run = summary(tmp_path, steps, locked={"D99": None}, box_is_open=is_open)
    found = words(layout(run)[1][-1])
    assert found[0] == f"in the lockbox, {'opened by this run' if is_open else 'not opened'}"
    assert found[1:] == ["High: 1 donor, 900 nuclei", "Not AD: 2 donors, 900 nuclei"]
    assert words(layout(run)[1][-2])[0] == "left out"


def overlap(one: Box, other: Box) -> bool:
    beside = one.x + one.width <= other.x or other.x + other.width <= one.x
    return not (beside or one.bottom <= other.top or other.bottom <= one.top)


counts = st.tuples(st.integers(0, 10**6), st.integers(0, 10**9))
groups = st.fixed_dictionaries({}, optional={"positive": counts, "negative": counts, "excluded": counts})
names = st.text(max_size=400).filter(lambda name: name.strip() != "")


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(names, groups.filter(bool), min_size=1, max_size=8), names, names)
def test_no_box_lies_on_another_and_every_line_fits_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, negative: str, positive: str
) -> None:
    run = summary(tmp_path_factory.getbasetemp(), steps, classes=(negative, positive), locked={"D99": None})
    every = [box for boxes in layout(run) for box in boxes]
    assert not [pair for pair in combinations(every, 2) if overlap(*pair)]
    for box in every:
        assert box.x >= 0
        assert box.x + box.width <= WIDTH
        assert all(len(line.text) <= box.width * SIGNS for line in box.lines)
        assert all("\n" not in line.text for line in box.lines)


def test_the_picture_has_every_box_and_its_lines_in_the_colours_of_the_classes(tmp_path: Path) -> None:
    run = summary(tmp_path, STEPS)
    figure = flow(run)
    (axes,) = figure.axes
    every = [box for boxes in layout(run) for box in boxes]
    frames = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert len(frames) == len(every)
    shown = {text.get_text(): text.get_color() for text in axes.texts if text.get_text()}
    assert shown == {line.text: line.colour for box in every for line in box.lines if line.text}
    assert {colour for text, colour in shown.items() if text.startswith("High:")} == {POSITIVE}
    assert {colour for text, colour in shown.items() if text.startswith("Not AD:")} == {NEGATIVE}
    assert figure.get_size_inches()[0] * 96 <= 700
    figure.savefig(tmp_path / "flow.svg")
    lowest = max(box.bottom for box in every)
    assert lowest <= axes.get_ylim()[0]
