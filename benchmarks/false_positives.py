"""How often is a signal claimed where there is none? The permutation test, and the interval, on null cohorts.

    python benchmarks/false_positives.py                     40 minutes on two cores
    python benchmarks/false_positives.py --cohorts 20        two minutes

SIMULATED cohorts of 9 against 39 donors whose labels mean nothing: 300 genes that vary along four programs,
three columns of depth; five folds, the baselines of this package with all that they choose. Then cohorts in
which sex goes with the label and with 30 genes: labels permuted among all donors, and within sexes.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pandas as pd

from oligo_ad.baselines.gene_sets import NO_SETS
from oligo_ad.baselines.predictors import Baselines
from oligo_ad.baselines.views import Views
from oligo_ad.config import SplitConfig
from oligo_ad.data.permutation import exchanged, moved, relabelled
from oligo_ad.data.split import Fold, make_folds
from oligo_ad.results.intervals import HeldOut, auroc
from oligo_ad.results.metrics import mean_auroc
from oligo_ad.results.permutation import permutation_tests

N_POSITIVE, N_NEGATIVE, GENES, PROGRAMS, OF_SEX = 39, 9, 300, 4, 30
SPLIT = SplitConfig(
    kind="cv", test_fraction=0.2, validation_fraction=0.2, folds=5, repeats=1, seed=0, file=None, only=None
)  # fmt: skip
TESTED = ("depth", "pseudobulk", "stack")
LEVEL = 0.05


def cohort(seed: int, confounded: bool) -> tuple[Baselines, pd.Series]:
    """Baselines of a cohort without a signal, and the sex of its donors."""
    rng = np.random.default_rng(seed)
    donors = pd.Index([f"D{n:02d}" for n in range(N_POSITIVE + N_NEGATIVE)])
    label = pd.Series([1] * N_POSITIVE + [0] * N_NEGATIVE, donors)
    sex = (rng.random(len(donors)) < np.where(label == 1, 0.7, 0.3)).astype(int)
    expression = rng.normal(size=(len(donors), PROGRAMS)) @ rng.normal(size=(PROGRAMS, GENES)) / 2
    expression += rng.normal(size=(len(donors), GENES)) + 10  # all genes are expressed
    if confounded:
        expression[:, :OF_SEX] += sex[:, None]
    views = Views(
        donors=donors,
        covariates=pd.DataFrame(index=donors),
        depth=pd.DataFrame(rng.normal(size=(len(donors), 3)), donors),
        pseudobulk=expression,
        composition=pd.DataFrame(index=donors),
        gene_sets=NO_SETS,
    )
    return Baselines(views, label, seed), pd.Series(sex, donors)


def scored(baselines: Baselines, folds: list[Fold]) -> pd.DataFrame:
    """A row for each donor in the fold that tests it."""
    table = pd.concat([baselines.score(fold) for fold in folds], ignore_index=True)
    return table.assign(label=baselines.label[table["donor"]].to_numpy())


def tried(seed: int, n: int, confounded: bool, within_sex: bool) -> dict[str, tuple[bool, bool]]:
    """By predictor: whether the test rejects, and whether the interval excludes one half."""
    baselines, sex = cohort(seed, confounded)
    strata = sex.astype(str) if within_sex else pd.Series("", sex.index)
    folds = make_folds(baselines.label, SPLIT)
    table = scored(baselines, folds)
    observed = {name: mean_auroc(table, name) for name in TESTED}
    null = []
    for number in range(1, n + 1):
        source = exchanged(strata, seed, number)
        permuted = scored(baselines.relabelled(relabelled(baselines.label, source)), moved(folds, source))
        null.append({name: mean_auroc(permuted, name) for name in TESTED})
    tests = permutation_tests(pd.DataFrame(null), observed)
    rows = HeldOut(*(table[name].to_numpy() for name in ("fold", "donor", "label")), trained=38.4)
    intervals = {name: auroc(rows, table[name].to_numpy()) for name in TESTED}
    return {
        name: (tests[name].p <= LEVEL, not intervals[name].low <= 0.5 <= intervals[name].high)
        for name in TESTED
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort")
    asked = parser.parse_args()
    settings = {
        "nothing confounded": (False, False, asked.cohorts),
        "sex confounds, all donors permuted": (True, False, max(asked.cohorts // 4, 1)),
        "sex confounds, permuted within sexes": (True, True, max(asked.cohorts // 4, 1)),
    }
    print(f"{asked.permutations} permutations; cohorts with p <= {LEVEL}, and whose interval excludes 0.5")
    with ProcessPoolExecutor(asked.processes) as pool:
        for what, (confounded, within_sex, n) in settings.items():
            started = time.perf_counter()
            work = partial(tried, n=asked.permutations, confounded=confounded, within_sex=within_sex)
            found = list(pool.map(work, range(asked.seed, asked.seed + n)))
            print(f"{what}: {n} cohorts, {time.perf_counter() - started:.0f} s")
            for name in TESTED:
                rejected, excluded = np.array([one[name] for one in found]).mean(0)
                error = np.sqrt(rejected * (1 - rejected) / n)
                print(
                    f"  {name:<12} test {rejected:.3f} (SE {error:.3f})   interval {excluded:.3f}", flush=True
                )


if __name__ == "__main__":
    main()
