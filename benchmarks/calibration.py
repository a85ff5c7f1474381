"""Is Platt's method worth its two numbers, when they are fitted on eight validation donors?

    python -m benchmarks.calibration                  200 cohorts a row
    python -m benchmarks.calibration --cohorts 1000 --seed 7

Cohorts of 39 and 9 donors in five folds; each fold sets about eight donors aside for validation, one or two
of them of the smaller class. Scores are the logits of a balanced cohort, right or made wrong by a known line,
or those of a linear discriminant that is trained in each fold, as in `coverage.py`, and far too sure of
itself. A row shows the Brier score of the test donors at the cohort's prevalence: by the prior alone, by
Platt's method, and the mean difference; and the median distance of the calibration slope from 1.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri

from benchmarks.coverage import LABEL, Trained, discriminants
from oligo_ad.config import SplitConfig
from oligo_ad.data.split import make_folds
from oligo_ad.results.calibration import Calibrated, calibrate, fold_line

SPLIT = SplitConfig(
    kind="cv", test_fraction=0.2, validation_fraction=0.2, folds=5, repeats=1, seed=0, file=None, only=None
)  # fmt: skip
DONORS = pd.Series(LABEL, [f"D{n:02d}" for n in range(len(LABEL))])
HOW = ("none", "platt")
# Donor logits of each fold [F, N], from the donors that train it [F, N].
Scorer = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def distorted(auroc: float, slope: float, more: float) -> Scorer:
    """Right logits of two normal classes, times a slope, and more added."""
    shift = np.sqrt(2) * ndtri(auroc)

    def scores(rng: np.random.Generator, train_FN: np.ndarray) -> np.ndarray:
        right = shift * (rng.normal(size=len(LABEL)) + shift * (LABEL - 0.5))
        return np.broadcast_to(slope * right + more, train_FN.shape)

    return scores


def trained(auroc: float) -> Scorer:
    """Of a discriminant that takes correlated features for independent ones."""
    world = Trained(auroc, 4, 1.0)

    def scores(rng: np.random.Generator, train_FN: np.ndarray) -> np.ndarray:
        features_NP = world.features(rng)
        fitted = discriminants(features_NP, train_FN, world.shrinkage)
        logit_FN: np.ndarray = fitted.weight_FP @ features_NP.T - fitted.middle_F[:, None]
        return logit_FN

    return scores


def cohort(scorer: Scorer, seed: int, number: int) -> dict[str, Calibrated]:
    """One cohort, calibrated in each way."""
    folds = make_folds(DONORS, SplitConfig(**vars(SPLIT) | {"seed": number}))
    rng, at = np.random.default_rng([seed, number]), DONORS.index.get_indexer
    train_FN = np.array([np.isin(np.arange(len(LABEL)), at(fold.train)) for fold in folds])
    score_FN = expit(scorer(rng, train_FN))
    tested = [
        pd.DataFrame({"fold": f, "donor": fold.test, "label": LABEL[own], "model": score_FN[f, own]})
        for f, fold in enumerate(folds)
        for own in [at(fold.test)]
    ]
    found = {}
    for how in HOW:
        lines = {}
        for f, fold in enumerate(folds):
            train, own = LABEL[train_FN[f]], at(fold.validation)
            weight = (1 - train.mean()) / train.mean()
            lines[f] = fold_line(how, weight, train, train, (score_FN[f, own], LABEL[own]))
        found[how] = calibrate(pd.concat(tested), lines, None)
    return found


def rows() -> Iterator[tuple[str, float, Scorer]]:
    """All of the table: what is wrong with the scores, and their true AUROC."""
    wrongs = {"right": (1, 0), "3 x too extreme": (3, 0), "3 x too cautious": (1 / 3, 0), "shifted": (1, 1.5)}
    for name, (slope, more) in wrongs.items():
        for auroc in (0.65, 0.8, 0.9):
            yield name, auroc, distorted(auroc, slope, more)
    for auroc in (0.6, 0.75, 0.9):
        yield "trained, too extreme", auroc, trained(auroc)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=200, help="in each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, n = time.monotonic(), options.cohorts
    print(
        f"{'scores':22}truth  Brier: prior, Platt, difference; of the prevalence   slope from 1: prior, Platt"
    )
    for name, auroc, scorer in rows():
        found = [cohort(scorer, options.seed, number) for number in range(n)]
        brier = {how: np.array([one[how].scores["probability"]["brier"] for one in found]) for how in HOW}
        away = [np.median([abs(one[how].scores["probability"]["slope"] - 1) for one in found]) for how in HOW]
        gain = brier["platt"] - brier["none"]
        named = np.mean([one["none"].prevalence for one in found])
        print(
            f"{name:22}{auroc:.2f}   {brier['none'].mean():.3f}  {brier['platt'].mean():.3f}  "
            f"{gain.mean():+.4f} ± {gain.std(ddof=1) / np.sqrt(n):.4f}  {named:.3f}   "
            f"{away[0]:.2f}  {away[1]:.2f}",
            flush=True,
        )
    print(f"\n{n} cohorts a row, seed {options.seed}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
