"""leaderboard.csv and leaderboard.html: runs in one table, and how their scores depend on settings."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.pyplot import get_cmap
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from oligo_ad.faults import writing
from oligo_ad.results.report import attempt, environment, svg
from oligo_ad.results.sentences import COVERAGE
from oligo_ad.sheets import to_csv
from oligo_ad.storage.shelf import write_text
from oligo_ad.sweeps.comparison import OUTER, Leaderboard
from oligo_ad.sweeps.pictures import FEWEST, choices, learning_curve, of_choices
from oligo_ad.sweeps.remarks import FRACTION, SEED
from oligo_ad.words import command_of, word

log = logging.getLogger(__name__)

NAME = "leaderboard"
MOST_SETTINGS = 24  # in a picture
ENOUGH = 8  # finished runs, below which importances mean nothing


def write(board: Leaderboard, folder: Path) -> None:
    """Write both files, each whole or not at all, and log where they are."""
    page = render(board)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in (("csv", to_csv(board.table)), ("html", page)):
            write_text(folder / f"{NAME}.{suffix}", content)
    log.info("%s", summary(board, folder))


def render(board: Leaderboard) -> str:
    """leaderboard.html: one page that needs no other file."""
    template = environment().get_template("leaderboard.html.j2")
    return template.render(
        board=board,
        coverage=COVERAGE,
        shown=_shown(board),
        remarks=remarks(board),
        again=[
            command_of([word("rerun", folder)])
            for folder in board.table["folder"][board.table["status"] == "finished"].head(3)
        ],
        failures=board.table[board.table["status"] != "finished"],
        pictures={name: text for name, figure in draw(board).items() if (text := attempt(name, svg, figure))},
    )


def summary(board: Leaderboard, folder: Path) -> str:
    """The leaderboard as text for the terminal."""
    shown = _shown(board)
    text = shown.drop(columns=[name for name in ("nuclei AUROC", "seconds") if name in shown])
    warnings = [f"! {warning}." for warning in board.warnings]
    stamp = ["SIMULATED"] if board.simulated else []
    tested = [*([board.tested] if board.tested else []), *remarks(board)]
    place = f"leaderboard: {folder / NAME}.html"
    whole = "\n" + "\n\n".join([*stamp, text.to_string(index=False), *warnings, *tested, place])
    # Words of another person's run may hold what a terminal obeys.
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in whole)


def draw(board: Leaderboard) -> dict[str, Figure]:
    """Parallel coordinates of the settings that differ, and how much each of them explains."""
    done = board.table[board.table["status"] == "finished"]
    settings = [name for name in board.differing if name != OUTER][:MOST_SETTINGS]
    if len(done) < 2 or not settings:
        return {}
    pictures = {"settings": parallel_coordinates(done, settings, board.scored)}
    if has_choices(board):
        pictures["choices"] = choices(done, settings, _short(settings))
    if FRACTION in settings and not board.objectives and done["training donors"].notna().any():
        pictures["training donors"] = learning_curve(done, settings, _short(settings))
    if len(done) >= ENOUGH:
        pictures["importance"] = importance(done, settings)
    if board.simulated:
        for figure in pictures.values():
            figure.suptitle("SIMULATED", color="#b00020", fontsize=8, fontweight="bold", x=0.99, ha="right")
    return pictures


def has_choices(board: Leaderboard) -> bool:
    """Whether it is a grid of several settings, no search, with enough runs to show them together.

    Runs on several data files answer several questions, and nobody would choose fewer training donors.
    """
    done = board.table[board.table["status"] == "finished"]
    several = len(done) >= FEWEST and len(_choices(board)) > 1
    return several and board.one_file and FRACTION not in board.differing and not board.objectives


def _choices(board: Leaderboard) -> list[str]:
    """The settings that somebody chose."""
    return [name for name in board.differing if name not in (SEED, OUTER)]


def remarks(board: Leaderboard) -> list[str]:
    """What the runs show together."""
    done = board.table[board.table["status"] == "finished"]
    return [*([of_choices(done, _choices(board))] if has_choices(board) else []), *board.remarks]


def parallel_coordinates(done: pd.DataFrame, settings: list[str], scored: str) -> Figure:
    """A line for each run through its settings to its score."""
    columns = [*settings, "score"]
    figure = Figure(figsize=(max(6, 1.9 * len(columns)), 4), layout="constrained")
    axes = figure.subplots()
    heights = {name: _height(done[name]) for name in columns}
    score = done["score"].to_numpy()
    colour = get_cmap("viridis")(Normalize(score.min(), max(score.max(), score.min() + 1e-9))(score))
    rng = np.random.default_rng(0)  # a little noise, so that equal settings are not one line
    for place in range(len(done)):
        jitter = rng.normal(0, 0.012, len(columns))
        jitter[-1] = 0
        axes.plot(
            [heights[name][0][place] for name in columns] + jitter, color=colour[place], lw=1.6, alpha=0.8
        )
    for x, name in enumerate(columns):
        axes.axvline(x, color="#b9bec4", lw=0.8, zorder=0)
        for height, label in heights[name][1]:
            axes.text(x, height, f" {label}", fontsize=8, va="center", clip_on=False, bbox=_PAPER)
    axes.set_xticks(range(len(columns)), [*_short(settings), scored], fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(columns) - 0.55)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


_PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}


def _height(values: pd.Series) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Height of each value between 0 and 1, and the labels on the axis."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any() or numbers.nunique() <= 1:
        words = sorted(values.astype(str).unique())
        heights = values.astype(str).map(dict(zip(words, np.linspace(0, 1, len(words)), strict=True)))
        return heights.to_numpy(float), list(zip(np.linspace(0, 1, len(words)), words, strict=True))
    # Learning rates and the like are spread over decades.
    scaled = np.log(numbers) if numbers.min() > 0 and numbers.max() / numbers.min() > 30 else numbers
    heights = ((scaled - scaled.min()) / (scaled.max() - scaled.min())).to_numpy(float)
    ends = [(0.0, f"{numbers.min():.3g}"), (1.0, f"{numbers.max():.3g}")]
    return heights, ends


def importance(done: pd.DataFrame, settings: list[str]) -> Figure:
    """How much worse a random forest predicts the score when a setting is shuffled."""
    encoded = pd.DataFrame({name: _height(done[name])[0] for name in settings})
    target = done["score"].to_numpy()
    forest = RandomForestRegressor(300, random_state=0).fit(encoded, target)
    lost = permutation_importance(forest, encoded, target, n_repeats=20, random_state=0)
    order = np.argsort(lost.importances_mean)
    figure = Figure(figsize=(6, 1 + 0.35 * len(settings)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [_short(settings)[i] for i in order],
        lost.importances_mean[order],
        xerr=lost.importances_std[order],
        color="#3b6ea5",
    )
    axes.set_xlabel("loss of R² when the setting is shuffled among these runs")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _shown(board: Leaderboard) -> pd.DataFrame:
    """The table as text for readers: intervals beside their numbers."""
    table = board.table
    shown = pd.DataFrame({"run": table["run"]})
    for name, short in zip(board.differing, _short(board.differing), strict=True):
        shown[short] = table[name].map(_rounded)
    for name in board.objectives:
        shown[name] = ["" if np.isnan(value) else f"{value:.4f}" for value in table[name]]
    shown["donor AUROC"] = _with_interval(table, "donor AUROC", "low", "high")
    if "comparator" in table:
        shown["p"] = ["" if np.isnan(value) else f"{value:.3f}" for value in table["p"]]
        for name in ("to the best run", "to the comparator"):
            shown[name] = _with_interval(table, name, f"{name}, low", f"{name}, high", "+")
        shown["comparator"] = [
            f"{name} {auroc:.3f}" if isinstance(name, str) else ""
            for name, auroc in zip(table["comparator"], table["comparator AUROC"], strict=True)
        ]
        for name, digits in (("nuclei AUROC", 3), ("seconds", 0)):
            shown[name] = ["" if np.isnan(value) else f"{value:.{digits}f}" for value in table[name]]
    shown.loc[table["status"] != "finished", "donor AUROC"] = table["status"]
    return shown.loc[:, (shown != "").any()]


def _short(names: list[str]) -> list[str]:
    """Fields by their last word where that is clear."""
    last = [name.rpartition(".")[2] for name in names]
    clear = [word if last.count(word) == 1 else name for name, word in zip(names, last, strict=True)]
    return ["outer fold" if name == OUTER else word for name, word in zip(names, clear, strict=True)]


def _rounded(value: str) -> str:
    """A setting with three significant digits."""
    try:
        return f"{float(value):.3g}" if "." in value or "e" in value else value
    except ValueError:
        return value


def _with_interval(table: pd.DataFrame, value: str, low: str, high: str, sign: str = "") -> list[str]:
    if low not in table:
        return [""] * len(table)
    return [
        "" if np.isnan(v) else f"{v:{sign}.3f} ({a:{sign}.3f} to {b:{sign}.3f})"
        for v, a, b in table[[value, low, high]].itertuples(index=False, name=None)
    ]
