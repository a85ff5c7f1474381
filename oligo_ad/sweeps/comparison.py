"""Compares runs: which is best, by how much, and whether that is more than luck.

Runs are compared by their held-out donors, and differences are paired: donor by donor, on the same folds. A
run is compared with the best run on the same folds of the same data. Directories may be another person's:
what cannot be read of one is said in its row, and the others stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oligo_ad.data.overlap import people_in, shared
from oligo_ad.errors import UserError, listing
from oligo_ad.record import Record, run_folders
from oligo_ad.results.evaluation import FEW_DONORS, MODEL
from oligo_ad.results.intervals import LEVEL, Interval, auroc_deviations
from oligo_ad.results.metrics import auroc_gain, mean_auroc, summarise
from oligo_ad.sweeps.compared import TRIAL_FIELDS, ComparedRun, Folds
from oligo_ad.sweeps.remarks import of_seeds, of_training_donors

N_DRAWS, SEED = 4000, 0
OUTER = "split.only"
FORMER = "pseudobulk"  # the comparator of runs that have named none


@dataclass(frozen=True)
class Leaderboard:
    """Compared runs, best first.

    `table`: a row for each run, ordered by `score`, which is donor AUROC, or what a search maximised.
    `differing`: overrides that differ between runs. `warnings`: reasons to doubt the order. `tested`: for a
    search, the result of the settings that it chose. `one_file`: whether all were made of one data file.
    `remarks`: what the runs show together.
    """

    table: pd.DataFrame
    differing: list[str]
    warnings: list[str]
    simulated: bool
    tested: str = ""
    one_file: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def objectives(self) -> list[str]:
        """Columns of what searches maximised, on validation donors; none where no run is of a search."""
        return [name for name in self.table if name.startswith("validation ")]

    @property
    def scored(self) -> str:
        """The name of the score."""
        if not self.objectives:
            return "donor AUROC"
        return self.objectives[0].replace("validation loss", "- validation loss")

    @property
    def n_failed(self) -> int:
        return int(self.table["status"].isin(["failed", "did not end", "damaged"]).sum())


def find_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Every run at or under the folders, in the order of their paths, numbers by their size.

    Raises:
        UserError: a folder is missing.
    """
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"{missing[0]} is no folder. Give run directories, or folders of them.")
    return [ComparedRun(Record(folder)) for folder in sorted(run_folders(folders), key=_natural)]


def compare(runs: list[ComparedRun]) -> Leaderboard:
    """The runs in the order of their scores, with intervals, differences and warnings."""
    whole = [run for run in runs if not run.damage]
    keys = dict.fromkeys(key for run in whole for key in run.overrides if key not in TRIAL_FIELDS)
    differing = [key for key in keys if len({run.overrides.get(key) for run in whole}) > 1]
    finished = [run for run in whole if run.finished]
    best_on: dict[Folds, ComparedRun] = {}
    for run in sorted(finished, key=lambda run: run.value, reverse=True):
        best_on.setdefault(run.folds, run)
    rows = [_row(run, differing, best_on[run.folds] if run in finished else None) for run in runs]
    table = pd.DataFrame(rows)
    # Outer folds of a search have trials, and a best one, of their own.
    by = [key for key in (OUTER,) if key in table] + ["score"]
    table = table.sort_values(by, ascending=[key == OUTER for key in by], na_position="last", kind="stable")
    return Leaderboard(
        table=table.reset_index(drop=True),
        differing=differing,
        warnings=_warnings(finished) + _shared_donors(finished) + _damaged(runs),
        simulated=any(run.result.simulated for run in finished),
        one_file=len({run.data for run in finished}) == 1,
        remarks=(*of_seeds(finished), *of_training_donors(finished)),
    )


def _row(run: ComparedRun, differing: list[str], best: ComparedRun | None) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run.folder.name, "status": run.status}
    row |= {key: "" if run.damage else run.overrides.get(key, "") for key in differing}
    if best is None:
        return row | {
            "score": np.nan,
            "donor AUROC": np.nan,
            "failure": run.damage or run.record.failure,
            "folder": str(run.folder),
        }
    headline = run.result.headline
    if run.validated and run.result.objective:
        row |= {f"validation {run.result.objective.name}": abs(run.value)}
    row |= {
        "score": run.value,
        "donor AUROC": headline.value,
        "low": headline.interval.low,
        "high": headline.interval.high,
        **_difference("to the best run", _paired(run, best)),
        **_to_comparator(run),
        "p": headline.p if headline.p is not None else np.nan,
        "training donors": headline.trained_donors or np.nan,
        "nuclei AUROC": _nuclei_auroc(run),
        "seconds": run.result.seconds,
        "failure": "",
        "folder": str(run.folder),
    }
    return row


def _nuclei_auroc(run: ComparedRun) -> float:
    """NaN for a model that predicts donors."""
    scores = run.result.cells.get(MODEL)
    found = scores.get("mean_over_folds", {}).get("auroc") if scores else None
    return float(found) if isinstance(found, int | float) else float("nan")


def _difference(name: str, found: tuple[float, Interval] | None) -> dict[str, float]:
    value, spread = found or (np.nan, Interval(np.nan, np.nan))
    return {name: value, f"{name}, low": spread.low, f"{name}, high": spread.high}


def _paired(run: ComparedRun, other: ComparedRun) -> tuple[float, Interval] | None:
    """The difference of two runs on the same folds; None for a run and itself."""
    if run is other:
        return None
    own = [one.donors.set_index(["fold", "donor"])[[MODEL, "label"]].sort_index() for one in (run, other)]
    both = own[0].assign(other=own[1][MODEL]).reset_index()
    trained = min(run.trained, other.trained)
    return run.auroc - other.auroc, auroc_gain(both, MODEL, "other", trained)


def _to_comparator(run: ComparedRun) -> dict[str, Any]:
    """The baseline that was named beforehand, and the difference to it.

    Runs of earlier versions have named none: they are compared with pseudobulk.
    """
    headline = run.result.headline
    name, found = headline.comparator, None
    if name and headline.gain_interval:
        spread = headline.gain_interval
        found = headline.gain, Interval(spread.low, spread.high)
    elif headline.best_baseline and FORMER in run.donors.select_dtypes("number") and not run.validated:
        name = FORMER
        gain = mean_auroc(run.donors, MODEL) - mean_auroc(run.donors, name)
        found = gain, auroc_gain(run.donors, MODEL, name, run.trained)
    return {
        "comparator": name if found else None,
        "comparator AUROC": headline.value - found[0] if found else np.nan,
        **_difference("to the comparator", found),
    }


def result_of(runs: list[ComparedRun]) -> str:
    """The result of a search in a sentence: the chosen settings on test donors, over all outer folds."""
    done = [run for run in runs if run.status == "finished"]
    if not done:
        return ""
    donors = pd.concat([run.donors for run in done], ignore_index=True)
    trained = float(np.mean([run.trained for run in done]))
    scored = donors.select_dtypes("number")
    comparator = done[0].result.headline.comparator or FORMER
    predictors = [MODEL, *([comparator] if comparator in scored else [])]
    scores = {name: summarise(donors, name, trained) for name in predictors}
    auroc = {name: found.mean_over_folds["auroc"] for name, found in scores.items()}
    spread = scores[MODEL].auroc
    text = (
        f"Chosen on validation donors, then tested once, in {len(done)} of {len(runs)} outer folds: "
        f"donor AUROC {auroc[MODEL]:.3f} ({spread.low:.3f} to {spread.high:.3f})"
    )
    if len(predictors) == 1:
        return f"{text}."
    gain = auroc_gain(donors, MODEL, comparator, trained)
    difference = auroc[MODEL] - auroc[comparator]
    return (
        f"{text}; the comparator, {comparator}, {auroc[comparator]:.3f}; difference {difference:+.3f} "
        f"({gain.low:+.3f} to {gain.high:+.3f})."
    )


def _drawn(runs: list[ComparedRun]) -> np.ndarray:
    """Donor AUROCs of runs on the same folds, drawn as other donors might have given them [runs, draws].

    Each donor's part in each AUROC is multiplied by one normal number, the same for all runs (the multiplier
    bootstrap: Chernozhukov, Chetverikov & Kato 2013, Ann. Statist. 41:2786); so runs keep their correlation.
    """
    deviation = np.array([auroc_deviations(*run.rows) for run in runs])
    drawn = deviation @ np.random.default_rng(SEED).normal(size=(deviation.shape[1], N_DRAWS))
    return np.array([[run.auroc] for run in runs]) + drawn


def _shared_donors(finished: list[ComparedRun]) -> list[str]:
    """A warning where runs on different data files share donors: one cohort is no test of the other."""
    first: dict[str, ComparedRun] = {}
    for run in finished:
        first.setdefault(run.data, run)
    if len(first) < 2:
        return []
    people, warnings = [], []
    for run in first.values():
        try:
            people += [(run.folder.name, people_in(run.record))] if run.has_facts else []
        except UserError as error:
            warnings.append(f"donors of {run.folder.name} are not compared with those of other data: {error}")
    for (one, own), (other, seen) in combinations(people, 2):
        warnings += [f"data of {one} and {other}: {sentence}" for sentence in shared(own, seen)]
    return warnings


def _damaged(runs: list[ComparedRun]) -> list[str]:
    damaged = [run.folder.name for run in runs if run.damage]
    if not damaged:
        return []
    return [f"{len(damaged)} of {len(runs)} directories are damaged and not compared: {listing(damaged)}"]


def _warnings(finished: list[ComparedRun]) -> list[str]:
    if not finished:
        return ["no run has finished"]
    best = max(finished, key=lambda run: run.value)
    same = [run for run in finished if run.folds == best.folds]
    warnings = []
    searched = best.validated
    if (n := len({run.data for run in finished})) > 1:
        warnings.append(
            f"runs were made on {n} different data files (by content; their paths are in metrics.json): each "
            "is compared with the best run on its own data only"
        )
    if (others := len({run.folds[1] for run in finished}) - 1) and not searched:
        warnings.append(
            f"runs were scored on {others + 1} different sets of folds: each is compared with the best run "
            "on its own folds only. To use one set, give all runs the same split.seed or split.file"
        )
    if best.donors.drop_duplicates("donor")["label"].value_counts().min() < FEW_DONORS and not searched:
        warnings.append(f"fewer than {FEW_DONORS} test donors in a class: any order is luck. Use split=cv")
    if len(same) > 1:
        gap = best.auroc - float(np.median([run.auroc for run in same]))
        noise = choosing_noise(_drawn(same))
        if gap <= noise:
            warnings.append(
                f"the best of {len(same)} runs leads their median by {gap:.3f}; if all were equal, the best "
                f"would lead by up to {noise:.3f} ({LEVEL} % of draws of the donors): luck explains it"
            )
    return warnings


def choosing_noise(drawn: np.ndarray) -> float:
    """By how much the best of runs leads their median if all are equally good, at the 95th percentile.

    Each run's deviations from its own mean over draws of the donors [runs, draws] are what donors alone do to
    it; runs keep their correlation, since all are drawn together (after White 2000).
    """
    deviation = drawn - drawn.mean(axis=1, keepdims=True)
    lead = deviation.max(axis=0) - np.median(deviation, axis=0)
    return float(np.percentile(lead, LEVEL))


def _natural(folder: Path) -> tuple[Path, int, str]:
    name = folder.name
    return folder.parent, int(name) if name.isdigit() else -1, name
