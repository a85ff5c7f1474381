"""Runs side by side: differences are paired, luck is called luck, and nothing is hidden."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2
from sklearn.metrics import roc_auc_score

from oligo_ad import compare
from oligo_ad.results.metrics import summarise
from oligo_ad.sweeps import comparison, leaderboard
from oligo_ad.sweeps.comparison import Leaderboard, choosing_noise, find_runs, result_of
from tests.builders import answer, assert_says

LABEL = np.repeat([1, 0], [30, 12])


def run_folder(folder: Path, score: np.ndarray, *overrides: str, fold: int = 1, **changed: Any) -> Path:
    """What a run leaves for a comparison: one fold, a score for each of 42 donors."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(list(overrides)))
    donors = pd.DataFrame({"fold": fold, "donor": [f"D{i:02d}" for i in range(42)], "label": LABEL})
    donors.assign(threshold=0.5, model=score, pseudobulk=np.linspace(0, 1, 42)).to_csv(folder / "donors.csv")
    auroc = roc_auc_score(LABEL, score)
    metrics = {
        "headline": {
            "value": auroc,
            "interval": {"low": auroc - 0.1, "high": auroc + 0.1},
            "comparator": "pseudobulk",
            "gain": 0.05,
            "gain_interval": {"low": -0.1, "high": 0.2},
            "trained_donors": 168.0,
        },
        "simulated": False,
        "scored_on": "test donors",
        "cells": {"model": {"mean_over_folds": {"auroc": 0.6}}},
        "seconds": 12.0,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | changed))
    return folder


def scores(strength: float, seed: int) -> np.ndarray:
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(strength * LABEL, 1)))


def board(folder: Path) -> Leaderboard:
    return comparison.compare(find_runs([folder]))


def test_runs_stand_in_the_order_of_their_donor_auroc_with_what_tells_them_apart(tmp_path: Path) -> None:
    for place, strength in enumerate((0.5, 3.0, 1.5)):
        run_folder(tmp_path / str(place), scores(strength, 1), f"model=m{place}", "split=cv", "+fit.clip=2")
    found = board(tmp_path)
    assert found.differing == ["model"]
    assert found.table["model"].tolist() == ["m1", "m2", "m0"]
    assert found.table["donor AUROC"].is_monotonic_decreasing
    assert found.n_failed == 0


def test_the_difference_of_runs_is_that_of_the_same_donors(tmp_path: Path) -> None:
    """A run and its exact copy differ by nothing, and by little in any donors, though each is uncertain."""
    run_folder(tmp_path / "0", scores(1.0, 1), "seed=0")
    run_folder(tmp_path / "1", scores(1.0, 1) / 2, "seed=1")
    run_folder(tmp_path / "2", scores(0.0, 5), "seed=2")
    table = board(tmp_path).table.set_index("run")
    assert np.isnan(table.loc["0", "to the best run"])
    same = [float(table.loc["1", f"to the best run{end}"]) for end in (", low", "", ", high")]
    assert -0.05 < same[0] < same[1] == 0 < same[2] < 0.05
    worse = table.loc["2"]
    gap = worse["donor AUROC"] - table.loc["0", "donor AUROC"]
    assert worse["to the best run"] == pytest.approx(gap)
    assert worse["to the best run, low"] < gap < worse["to the best run, high"]


def test_runs_on_other_folds_are_set_beside_the_best_on_their_own(tmp_path: Path) -> None:
    for place, (strength, fold) in enumerate(((3.0, 1), (1.0, 2), (0.5, 2))):
        run_folder(tmp_path / str(place), scores(strength, 1), f"seed={place}", fold=fold)
    found = board(tmp_path)
    table = found.table.set_index("run")
    assert table["to the best run"].isna().tolist() == [True, True, False]
    assert any("2 different sets of folds" in warning for warning in found.warnings)


def test_failed_pruned_and_unfinished_runs_are_listed_with_their_message(tmp_path: Path) -> None:
    run_folder(tmp_path / "0", scores(1.0, 1), "seed=0")
    for place, file, content in (
        ("1", "failure.json", {"message": "the loss became <nan>"}),
        ("2", "pruned.json", {}),
        ("3", "run.log", {}),
    ):
        (tmp_path / place / ".hydra").mkdir(parents=True)
        (tmp_path / place / ".hydra/overrides.yaml").write_text(f'["seed={place}"]')
        (tmp_path / place / file).write_text(json.dumps(content))
    found = board(tmp_path)
    assert found.table["status"].tolist() == ["finished", "failed", "pruned", "did not end"]
    assert found.table["failure"].tolist() == ["", "the loss became <nan>", "", ""]
    assert found.n_failed == 2
    leaderboard.write(found, tmp_path)
    page = (tmp_path / "leaderboard.html").read_text()
    assert_says(page, "the loss became &lt;nan&gt;", "did not end", "pruned")
    assert pd.read_csv(tmp_path / "leaderboard.csv")["failure"][1] == "the loss became <nan>"


def test_a_lead_that_luck_explains_is_called_luck(tmp_path: Path) -> None:
    for seed in range(12):
        run_folder(tmp_path / str(seed), scores(0.5, seed), f"seed={seed}")
    assert any("luck explains it" in warning for warning in board(tmp_path).warnings)


def test_a_lead_beyond_luck_is_not(tmp_path: Path) -> None:
    for seed in range(12):
        strength = 6.0 if seed == 7 else 0.0
        run_folder(tmp_path / str(seed), scores(strength, seed), f"seed={seed}")
    found = board(tmp_path)
    assert found.table["run"][0] == "7"
    assert not any("luck explains it" in warning for warning in found.warnings)


@pytest.mark.parametrize("n", [2, 10, 100])
def test_the_noise_of_choosing_is_that_of_the_best_of_equal_runs(n: int) -> None:
    """Runs of independent noise: the lead of their best over their median, at its 95th percentile."""
    rng = np.random.default_rng(0)
    found = choosing_noise(0.8 + 0.05 * rng.normal(size=(n, 4000)))
    drawn = 0.05 * rng.normal(size=(n, 4000))
    assert found == pytest.approx(np.percentile(drawn.max(0) - np.median(drawn, 0), 95), rel=0.06)


def test_runs_that_do_the_same_leave_nothing_to_choose() -> None:
    same = np.random.default_rng(0).normal(size=4000)
    assert choosing_noise(np.tile(same, (10, 1))) == pytest.approx(0, abs=1e-12)


def trial(folder: Path, seed: int, value: float, *overrides: str) -> Path:
    changed = {"scored_on": "validation donors", "objective": {"name": "loss", "value": value}}
    return run_folder(folder, scores(0.5, seed), *overrides, **changed)


def test_trials_of_a_search_stand_in_the_order_of_what_it_maximised(tmp_path: Path) -> None:
    for place, value in enumerate((-0.7, -0.5, -0.6)):
        words = ("task=validate", f"task.trial={place}", f"fit.optimizer.lr=0.00{place + 1}")
        trial(tmp_path / str(place), place, value, *words)
    found = board(tmp_path)
    assert found.table["run"].tolist() == ["1", "2", "0"]
    assert found.differing == ["fit.optimizer.lr"]
    assert found.table["validation loss"].tolist() == [0.5, 0.6, 0.7]
    assert found.scored == "- validation loss"


def test_what_a_search_chose_is_told_with_its_result_over_all_outer_folds(tmp_path: Path) -> None:
    for fold in (1, 2):
        run_folder(tmp_path / "best" / str(fold), scores(1.5, fold), fold=fold)
    said = result_of(find_runs([tmp_path / "best"]))
    auroc = np.mean([roc_auc_score(LABEL, scores(1.5, fold)) for fold in (1, 2)])
    baseline = roc_auc_score(LABEL, np.linspace(0, 1, 42))
    assert_says(said, "2 of 2 outer folds", f"{auroc:.3f} (", f"pseudobulk, {baseline:.3f}")
    assert_says(said, f"{auroc - baseline:+.3f}")


def test_a_comparison_of_directories_needs_runs_in_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as told:
        compare.main([str(tmp_path)])
    assert_says(str(told.value), str(tmp_path), "no run")
    assert_says(answer(find_runs, [tmp_path / "absent"]), "absent is no folder")


def test_any_directories_are_compared_into_one_table(tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        for place in range(5):
            words = (f"fit.optimizer.lr=1e-{place + 1}", f"model={day}")
            run_folder(tmp_path / day / str(place), scores(1.0, place), *words, simulated=True)
    compare.main([str(tmp_path / "monday"), str(tmp_path / "tuesday"), "--out", str(tmp_path)])
    page = (tmp_path / "leaderboard.html").read_text()
    assert_says(page, "SIMULATED", "10 runs compared", 'alt="settings"', 'alt="importance"', "rerun=")
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 10


# What runs show together


def test_the_gain_of_a_run_that_named_no_comparator_is_over_pseudobulk(tmp_path: Path) -> None:
    own, auroc = scores(1.0, 1), roc_auc_score(LABEL, scores(1.0, 1))
    headline = {
        "value": auroc,
        "interval": {"low": 0.1, "high": 0.9},
        "best_baseline": "depth",
        "gain": 0.77,
        "gain_interval": {"low": 0.7, "high": 0.8},
    }
    run_folder(tmp_path / "old", own, headline=headline)
    row = board(tmp_path).table.iloc[0]
    of_comparator = roc_auc_score(LABEL, np.linspace(0, 1, 42))
    assert row["comparator"] == "pseudobulk"
    assert row["comparator AUROC"] == pytest.approx(of_comparator)
    assert row["to the comparator"] == pytest.approx(auroc - of_comparator)
    assert row["to the comparator, low"] < row["to the comparator"] < row["to the comparator, high"]


def grid(folder: Path, n_seeds: int = 1, moves: bool = False) -> Leaderboard:
    """Runs of two settings of three values, and several seeds of each pair, which may move the folds."""
    settings = [(a, b, seed) for a in ("1", "2", "10") for b in ("x", "y", "z") for seed in range(n_seeds)]
    for place, (a, b, seed) in enumerate(settings):
        words = (f"model.network.a={a}", f"data.b={b}", *([f"seed={seed}"] if seed else []))
        own = scores(1.0 + 0.02 * float(a), place)
        run_folder(folder / str(place), own, *words, fold=1 + seed * moves)
    return board(folder)


def test_all_choices_are_drawn_with_their_settings_and_summed_up_without_a_winner(tmp_path: Path) -> None:
    found = grid(tmp_path)
    figure = leaderboard.draw(found)["choices"]
    above, below = figure.axes
    auroc = np.sort(found.table["donor AUROC"])
    assert above.lines[0].get_ydata().tolist() == auroc.tolist()
    labels = [text.get_text() for text in below.get_yticklabels()]
    assert labels == ["a = 1", "a = 2", "a = 10", "b = x", "b = y", "b = z"]
    dots = sum(int(np.isfinite(line.get_ydata()).sum()) for line in below.lines)
    assert dots == 2 * 9
    (sentence,) = leaderboard.remarks(found)
    assert (
        f"Over 9 defensible choices the donor AUROC lies between {auroc[0]:.3f} and {auroc[-1]:.3f}"
        in sentence
    )
    n_better = int((found.table["to the comparator"] > 0).sum())
    assert f"the difference to pseudobulk is above 0 in {n_better} of 9" in sentence
    assert sentence in leaderboard.render(found)


def test_a_setting_of_many_values_is_named_and_not_drawn(tmp_path: Path) -> None:
    for place in range(20):
        words = (f"fit.optimizer.lr=1e-{place}", f"data.b={place % 2}")
        run_folder(tmp_path / str(place), scores(1.0, place), *words)
    _, below = leaderboard.draw(board(tmp_path))["choices"].axes
    assert [text.get_text() for text in below.get_yticklabels()] == ["b = 0", "b = 1"]
    assert_says(below.get_xlabel(), "not drawn: lr (20 values)")


def test_few_runs_or_one_setting_are_no_multiverse(tmp_path: Path) -> None:
    for place in range(8):
        run_folder(tmp_path / str(place), scores(1.0, place), f"seed={place}", f"model.network.a={place % 4}")
    found = board(tmp_path)
    assert not leaderboard.has_choices(found)
    assert "choices" not in leaderboard.draw(found)


def test_seeds_of_a_choice_are_one_choice(tmp_path: Path) -> None:
    assert "Over 9 defensible choices (18 runs) the" in leaderboard.remarks(grid(tmp_path, n_seeds=2))[0]


@pytest.mark.parametrize("odd", ["data", "donors"])
def test_runs_of_several_data_files_or_of_fewer_donors_are_no_choices(odd: str, tmp_path: Path) -> None:
    for place in range(8):
        source = {"data": {"path": "x", "fingerprint": str(place % 2 if odd == "data" else 0)}}
        more = f"split.train_fraction={1 - place % 2 / 2}" if odd == "donors" else f"data.b={place % 2}"
        words = (f"model.network.a={place // 2}", more)
        run_folder(tmp_path / str(place), scores(1.0, place), *words, sources=source)
    found = board(tmp_path)
    assert not leaderboard.has_choices(found)
    assert not any("choices" in remark for remark in leaderboard.remarks(found))


def of_seeds(found: Leaderboard) -> str:
    (sentence,) = [remark for remark in found.remarks if "seed" in remark]
    return sentence


def test_seeds_and_donors_share_the_variance(tmp_path: Path) -> None:
    """The first seed of each pair is the default one, which its command line does not name."""
    found = grid(tmp_path, n_seeds=3)
    sentence = of_seeds(found)
    squares = [own["donor AUROC"].var() for _, own in found.table.groupby(["model.network.a", "data.b"])]
    of_seed = np.sqrt(np.mean(squares))
    # Two degrees of freedom: the seeds are the same in all groups.
    low, high = (of_seed * np.sqrt(2 / chi2.ppf(at, 2)) for at in (0.975, 0.025))
    assert_says(
        sentence, f"moves the donor AUROC by {of_seed:.3f} (SD over 3 seeds; {low:.3f} to {high:.3f})"
    )
    assert sentence.startswith("The seed moves")
    errors = []
    for run in find_runs([tmp_path]):
        spread = summarise(run.donors, "model", 168.0).auroc
        errors.append((spread.high - spread.low) / 2 / 1.96)
    of_donors = np.sqrt(np.mean(np.square(errors)))
    share = of_seed**2 / (of_seed**2 + of_donors**2)
    assert_says(sentence, f"{of_donors:.3f} (standard error): {100 * share:.0f} % of the variance of one run")
    assert grid(tmp_path / "two", n_seeds=2).remarks == ()


def test_seeds_that_move_the_folds_are_said_to(tmp_path: Path) -> None:
    assert of_seeds(grid(tmp_path, 3, moves=True)).startswith("The seed, with the division into folds, moves")


def test_perfect_runs_of_several_seeds_leave_the_donors_uncertain(tmp_path: Path) -> None:
    for seed in range(3):
        run_folder(tmp_path / str(seed), LABEL * 0.5 + 0.1, f"seed={seed}")
    assert_says(of_seeds(board(tmp_path)), "by 0.000 (SD over 3 seeds", "0 % of the variance", "help little")
    assert "by 0.000 (standard error)" not in of_seeds(board(tmp_path))


def test_a_seed_that_was_run_twice_is_one_seed(tmp_path: Path) -> None:
    for place, words in enumerate(([], ["seed=0"], ["seed=1"], ["+seed=1"])):
        run_folder(tmp_path / str(place), scores(1.0, place), *words)
    assert board(tmp_path).remarks == ()


def test_few_seeds_are_not_said_to_be_enough(tmp_path: Path) -> None:
    """Seeds that move the score little, which three of them cannot show."""
    for seed, bump in enumerate((0.0, 0.5, 1.0)):
        own = scores(1.0, 1)
        own[LABEL == 0] = own[LABEL == 0] ** (1 - 0.1 * bump)
        run_folder(tmp_path / str(seed), own, f"seed={seed}")
    sentence = of_seeds(board(tmp_path))
    assert_says(sentence, "With 3 seeds that is not well known")
    assert "help little" not in sentence


def shares(folder: Path, *settings: str, first: int = 0, seeds: int = 1, better: float = 0.0) -> None:
    """Runs of three shares of the training donors; `better`: how much more signal the largest finds."""
    for place, fraction in enumerate((1.0, 0.4, 0.7)):
        for seed in range(seeds):
            noise = np.random.default_rng(seed).normal(size=42)
            own = 1 / (1 + np.exp(-(0.5 + better * (fraction == 1.0)) * LABEL - noise))
            auroc = roc_auc_score(LABEL, own)
            headline = {
                "value": auroc,
                "interval": {"low": auroc - 0.2, "high": min(auroc + 0.2, 1.0)},
                "comparator": "pseudobulk",
                "gain": 0.1,
                "gain_interval": {"low": -0.1, "high": 0.3},
                "trained_donors": 168 * fraction,
            }
            share = [f"split.train_fraction={fraction}"] if fraction < 1 else []
            words = (*share, *settings, *([f"seed={seed}"] if seed else []))
            run_folder(folder / str(first + 10 * place + seed), own, *words, headline=headline)


def test_more_training_donors_are_drawn_against_the_score(tmp_path: Path) -> None:
    shares(tmp_path)
    found = board(tmp_path)
    (axes,) = leaderboard.draw(found)["training donors"].axes
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([67.2, 117.6, 168])
    auroc = found.table.set_index("training donors")["donor AUROC"].sort_index()
    assert axes.lines[0].get_ydata().tolist() == pytest.approx(auroc.tolist())


def test_each_model_has_a_line_of_its_own_with_its_seeds_averaged(tmp_path: Path) -> None:
    for place, model in enumerate(("mlp", "transformer")):
        shares(tmp_path, f"model={model}", first=100 * place, seeds=2)
    found = board(tmp_path)
    (axes,) = leaderboard.draw(found)["training donors"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "comparator", "model mlp", "model transformer",
    ]  # fmt: skip
    means = found.table.groupby(["model", "training donors"])["donor AUROC"].mean()
    drawn = [bar.lines[0].get_ydata().tolist() for bar in axes.containers]
    assert drawn == [pytest.approx(means[model].tolist()) for model in ("mlp", "transformer")]
    assert len(found.remarks) == 2
    assert found.remarks[0].startswith("model=mlp: from 70 to 100 %")


def test_the_rise_with_training_donors_is_the_paired_difference_of_the_last_third(tmp_path: Path) -> None:
    shares(tmp_path / "flat", better=0.1)
    (flat,) = board(tmp_path / "flat").remarks
    assert_says(
        flat, "From 70 to 100 % of the training donors (118 to 168 in a fold)", "allows a rise as well"
    )
    table = board(tmp_path / "flat").table.set_index("run")["donor AUROC"]
    assert f"changes by {table['0'] - table['20']:+.3f} (" in flat
    shares(tmp_path / "rising", better=4.0, seeds=3)
    said = [remark for remark in board(tmp_path / "rising").remarks if "training donors" in remark]
    table = board(tmp_path / "rising").table.groupby("training donors")["donor AUROC"].mean()
    assert_says(said[0], "still rising", f"changes by {table.iloc[2] - table.iloc[1]:+.3f} (")
    assert len(said) == 1


def test_shares_on_other_test_donors_are_not_set_against_each_other(tmp_path: Path) -> None:
    for place, fraction in enumerate(("0.7", "1.0", "${oc.env:X}", "many")):
        run_folder(tmp_path / str(place), scores(1.0, 1), f"split.train_fraction={fraction}", fold=place + 1)
    assert board(tmp_path).remarks == ()


def test_a_comparator_that_is_no_number_in_a_run_of_an_earlier_version_is_left_out(tmp_path: Path) -> None:
    own = scores(1.0, 1)
    headline = {
        "value": roc_auc_score(LABEL, own),
        "interval": {"low": 0.1, "high": 0.9},
        "best_baseline": "depth",
        "gain": 0.77,
        "gain_interval": None,
    }
    folder = run_folder(tmp_path / "old", own, headline=headline)
    donors = pd.read_csv(folder / "donors.csv", index_col=0)
    donors.assign(pseudobulk="high").to_csv(folder / "donors.csv")
    row = board(tmp_path).table.iloc[0]
    assert np.isnan(row["to the comparator"])
    assert row["comparator"] is None


def test_cohorts_that_share_donors_are_no_test_of_each_other(tmp_path: Path) -> None:
    facts = {
        "cohort": {}, "simulated": False, "classes": ["a", "b"], "sample": "nucleus", "excluded": [],
        "flow": [{"step": "file", "class": "positive", "donors": 1, "nuclei": 1}], "notes": [],
        "covariates": [], "label_derived": [], "pretrained": None, "random_weights": False,
        "environment": {}, "words": [], "seconds": 1.0,
    }  # fmt: skip
    for place, ids in enumerate((["D1", "D2"], ["d2", "E1"])):
        source = {"data": {"path": "x", "fingerprint": str(place)}}
        folder = run_folder(tmp_path / str(place), scores(1.0, place), sources=source)
        donors = {donor: {"label": 1, "nuclei": 9} for donor in ids}
        (folder / "facts.json").write_text(json.dumps(facts | {"donors": donors, "sources": source}))
    assert any("1 donor is in both, by id: D2" in warning for warning in board(tmp_path).warnings)
