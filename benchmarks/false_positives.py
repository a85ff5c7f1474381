"""How often is a signal claimed where there is none? The permutation test, and the interval, on null cohorts.

    python benchmarks/false_positives.py --kept FILE         three hours on two cores; goes on from FILE
    python benchmarks/false_positives.py --cohorts 20        ten minutes

SIMULATED cohorts of 9 against 39 donors whose labels mean nothing: 300 genes that vary along four programs,
and three columns of depth; five folds, the baselines of this package with all that they choose. Then cohorts
in which sex goes with the label, with 30 genes and with a column of depth: labels permuted among all donors,
and within sexes. A cohort is a function of its seed.
"""

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from oligo_ad.baselines.gene_sets import NO_SETS
from oligo_ad.baselines.predictors import Baselines
from oligo_ad.baselines.views import Views
from oligo_ad.config import SplitConfig
from oligo_ad.data.permutation import exchanged, moved, relabelled
from oligo_ad.data.split import Fold, make_folds
from oligo_ad.results.intervals import HeldOut, auroc
from oligo_ad.results.permutation import permutation_tests
from oligo_ad.scores import aurocs

N_POSITIVE, N_NEGATIVE, GENES, PROGRAMS, OF_SEX = 39, 9, 300, 4, 30
SPLIT = SplitConfig(
    kind="cv", test_fraction=0.2, validation_fraction=0.2, folds=5, repeats=1, seed=0, file=None, only=None
)  # fmt: skip
TESTED = ("depth", "pseudobulk", "stack")
LEVEL = 0.05
# What is asked: whether sex goes with the label and with what is measured, and whether it is a stratum.
SETTINGS = {
    "nothing confounded": (False, False),
    "sex confounds, all donors permuted": (True, False),
    "sex confounds, permuted within sexes": (True, True),
}


class Asked(NamedTuple):
    """One cohort and its test."""

    setting: str
    seed: int
    permutations: int


def cohort(seed: int, confounded: bool) -> tuple[Baselines, pd.Series]:
    """Baselines of a cohort without a signal, and the sex of its donors."""
    rng = np.random.default_rng(seed)
    donors = pd.Index([f"D{n:02d}" for n in range(N_POSITIVE + N_NEGATIVE)])
    label = pd.Series([1] * N_POSITIVE + [0] * N_NEGATIVE, donors)
    sex = (rng.random(len(donors)) < np.where(label == 1, 0.7, 0.3)).astype(int)
    expression = rng.normal(size=(len(donors), PROGRAMS)) @ rng.normal(size=(PROGRAMS, GENES)) / 2
    expression += rng.normal(size=(len(donors), GENES)) + 10  # all genes are expressed
    depth = rng.normal(size=(len(donors), 3))
    if confounded:
        expression[:, :OF_SEX] += sex[:, None]
        depth[:, 0] += 2 * sex
    views = Views(
        donors=donors,
        covariates=pd.DataFrame(index=donors),
        depth=pd.DataFrame(depth, donors),
        pseudobulk=expression,
        composition=pd.DataFrame(index=donors),
        gene_sets=NO_SETS,
    )
    return Baselines(views, label, seed), pd.Series(sex, donors)


def scored(baselines: Baselines, folds: list[Fold]) -> pd.DataFrame:
    """A row for each donor in the fold that tests it."""
    table = pd.concat([baselines.score(fold) for fold in folds], ignore_index=True)
    return table.assign(label=baselines.label[table["donor"]].to_numpy())


def means(table: pd.DataFrame) -> dict[str, float]:
    """Donor AUROC of each predictor, mean over folds."""
    folds = [aurocs(own["label"].to_numpy(), own[[*TESTED]].to_numpy().T) for _, own in table.groupby("fold")]
    return dict(zip(TESTED, np.mean(folds, axis=0).tolist(), strict=True))


def tried(asked: Asked) -> dict[str, list[bool]]:
    """By predictor: whether the test rejects, and whether the interval excludes one half."""
    confounded, within_sex = SETTINGS[asked.setting]
    baselines, sex = cohort(asked.seed, confounded)
    strata = sex.astype(str) if within_sex else pd.Series("", sex.index)
    folds = make_folds(baselines.label, SPLIT)
    table, null = scored(baselines, folds), []
    for number in range(1, asked.permutations + 1):
        source = exchanged(strata, asked.seed, number)
        permuted = baselines.relabelled(relabelled(baselines.label, source))
        null.append(means(scored(permuted, moved(folds, source))))
    tests = permutation_tests(pd.DataFrame(null), means(table))
    trained = float(np.mean([len(fold.development) for fold in folds]))
    rows = HeldOut(*(table[name].to_numpy() for name in ("fold", "donor", "label")), trained=trained)
    intervals = {name: auroc(rows, table[name].to_numpy()) for name in TESTED}
    return {
        name: [tests[name].p <= LEVEL, not intervals[name].low <= 0.5 <= intervals[name].high]
        for name in TESTED
    }


def read(kept: Path | None) -> dict[Asked, dict[str, list[bool]]]:
    """What an earlier call has found; a line that was not finished is left out."""
    found = {}
    for line in kept.read_text().splitlines(keepends=True) if kept and kept.exists() else []:
        if line.endswith("\n"):
            content = json.loads(line)
            found[Asked(*content["asked"])] = content["found"]
    return found


def results(wanted: list[Asked], kept: Path | None, processes: int) -> dict[Asked, dict[str, list[bool]]]:
    """What was found of each cohort; what is new goes into the file as it comes."""
    found = read(kept)
    with ProcessPoolExecutor(processes) as pool:
        waiting = {pool.submit(tried, asked): asked for asked in wanted if asked not in found}
        for future in as_completed(waiting):
            asked, found[waiting[future]] = waiting[future], future.result()
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps({"asked": asked, "found": found[asked]}) + "\n")
    return {asked: found[asked] for asked in wanted}


def lines(found: dict[Asked, dict[str, list[bool]]]) -> Iterator[str]:
    """Rates by predictor, each with its binomial standard error."""
    for name in TESTED:
        rates = np.array([one[name] for one in found.values()]).mean(0)
        errors = np.sqrt(rates * (1 - rates) / len(found))
        test, interval = (f"{rate:.3f} (SE {error:.3f})" for rate, error in zip(rates, errors, strict=True))
        yield f"  {name:<12} test {test}   interval {interval}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=300, help="of each setting")
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort")
    parser.add_argument("--kept", type=Path, help="a file of what was found, from which to go on")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.cohorts)
    print(f"{given.permutations} permutations; cohorts with p <= {LEVEL}, and whose interval excludes 0.5")
    for setting in SETTINGS:
        started = time.perf_counter()
        wanted = [Asked(setting, seed, given.permutations) for seed in seeds]
        found = results(wanted, given.kept, given.processes)
        seconds = time.perf_counter() - started
        print(f"{setting}: {len(wanted)} cohorts, seeds {seeds[0]} to {seeds[-1]}, {seconds:.0f} s")
        print("\n".join(lines(found)), flush=True)


if __name__ == "__main__":
    main()
