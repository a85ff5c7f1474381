"""What runs show together: how much the seed moves the score, and whether more training donors would."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2

from oligo_ad.results import intervals
from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.intervals import LEVEL, QUANTILE
from oligo_ad.results.metrics import auroc_gain, mean_auroc
from oligo_ad.sweeps.compared import ComparedRun

SEED, FRACTION = "seed", "split.train_fraction"
DEFAULT_SEED, DEFAULT_FRACTION = "0", "1.0"  # of a run whose command line sets none
FEW_SEEDS = 3
LITTLE = 0.2  # share of the variance, below which more seeds help little
STEP = 2 / 3  # the smaller share of training donors that is set against the largest, at least


class VarianceOfSeeds(NamedTuple):
    """Standard deviations of the donor AUROC of one run.

    `seed`: over seeds, with its 95 % interval `low` to `high`; `donors`: over samples of donors. `n`: seeds.
    """

    seed: float
    low: float
    high: float
    donors: float
    n: int

    def share(self, of_seed: float) -> float:
        """The part of the variance of one run that is the seed's, given a standard deviation over seeds."""
        return of_seed**2 / (of_seed**2 + self.donors**2)


def variance_of_seeds(groups: Sequence[Sequence[ComparedRun]]) -> VarianceOfSeeds:
    """Of groups of runs, those of a group alike in all but the seed.

    The variance of seeds is the mean square within groups (one-way random effects; Searle, Casella &
    McCulloch 1992), its interval that of chi square with the seeds of the largest group, since groups use the
    same seeds.
    The standard error of donors is that of the interval of each run.
    """
    squares = [np.var([run.auroc for run in own], ddof=1) for own in groups]
    of_seed = float(np.sqrt(np.average(squares, weights=[len(own) - 1 for own in groups])))
    spreads = [intervals.auroc(*run.rows) for run in chain(*groups)]
    errors = np.array([(spread.high - spread.low) / 2 / QUANTILE for spread in spreads])
    n = max(len(own) for own in groups)
    high, low = np.sqrt((n - 1) / chi2.ppf([0.5 - LEVEL / 200, 0.5 + LEVEL / 200], n - 1))
    of_donors = float(np.sqrt(np.mean(errors**2)))
    return VarianceOfSeeds(of_seed, of_seed * float(low), of_seed * float(high), of_donors, n)


def of_seeds(finished: Sequence[ComparedRun]) -> list[str]:
    """How much the seed moves the score, and how much the donors do, where runs differ in nothing else."""
    groups: dict[object, dict[str, ComparedRun]] = {}
    for run in finished:
        # A seed that was run twice is one seed.
        groups.setdefault(run.settings(SEED), {})[run.overrides.get(SEED, DEFAULT_SEED)] = run
    several = [[*own.values()] for own in groups.values() if len(own) >= FEW_SEEDS]
    if not several:
        return []
    found = variance_of_seeds(several)
    moved = any(len({run.folds for run in own}) > 1 for own in several)
    share, least, most = (100 * found.share(own) for own in (found.seed, found.low, found.high))
    if most < 100 * LITTLE:
        advice = "More seeds help little"
    elif share >= 100 * LITTLE:
        advice = "The mean over seeds is steadier than one run"
    else:
        advice = f"With {found.n} seeds that is not well known"
    what = "The seed, with the division into folds," if moved else "The seed"
    return [
        f"{what} moves the donor AUROC by {found.seed:.3f} (SD over {found.n} seeds; {found.low:.3f} to "
        f"{found.high:.3f}), the choice of donors by {found.donors:.3f} (standard error): {share:.0f} % of "
        f"the variance of one run is the seed's ({least:.0f} to {most:.0f} %). {advice}."
    ]


def of_training_donors(finished: Sequence[ComparedRun]) -> list[str]:
    """Whether the score still rises with the number of training donors, on the same test donors."""
    groups: dict[object, dict[float, dict[str, ComparedRun]]] = {}
    for run in finished:
        if not run.validated and (share := _fraction(run)):
            own = groups.setdefault(run.settings(SEED, FRACTION), {}).setdefault(share, {})
            own[run.overrides.get(SEED, DEFAULT_SEED)] = run
    several = [own for own in groups.values() if len(own) > 1]
    return [sentence for own in several for sentence in _rise(own, named=len(several) > 1)]


def _fraction(run: ComparedRun) -> float:
    """The share of training donors; 0 where its command line does not say a number."""
    try:
        share = float(run.overrides.get(FRACTION, DEFAULT_FRACTION))
    except ValueError:
        return 0.0
    return share if 0 < share <= 1 else 0.0


def _rise(runs: dict[float, dict[str, ComparedRun]], named: bool) -> Iterator[str]:
    """From a smaller share to the largest, of runs by share and seed; `named`: say of which settings."""
    largest = max(runs)
    smaller = [share for share in runs if share < largest]
    least = min((share for share in smaller if share >= STEP * largest), default=max(smaller))
    pairs = [
        (runs[least][seed], more)
        for seed, more in runs[largest].items()
        if seed in runs[least] and runs[least][seed].folds == more.folds
    ]
    if not pairs:
        return
    # The mean over seeds: each is a repeat of the folds.
    table = pd.concat([_side_by_side(*pair).assign(seed=str(n)) for n, pair in enumerate(pairs)])
    table["fold"] = table["seed"] + "/" + table["fold"].astype(str)
    n_less, n_more = (float(np.mean([run.trained for run in side])) for side in zip(*pairs, strict=True))
    rise = mean_auroc(table, "more") - mean_auroc(table, "less")
    spread = auroc_gain(table, "more", "less", min(n_less, n_more))
    if spread.low > 0:
        found = "it is still rising"
    elif spread.high < 0:
        found = "it falls"
    else:
        found = "the interval allows a rise as well as none"
    own = [f"{field}={value}" for field, value in pairs[0][1].settings(SEED, FRACTION) if field != "data"]
    where = f"{' '.join(own)}: f" if named and own else "F"
    yield (
        f"{where}rom {100 * least:.0f} to {100 * largest:.0f} % of the training donors ({n_less:.0f} to "
        f"{n_more:.0f} in a fold) the donor AUROC changes by {rise:+.3f} ({spread.low:+.3f} to "
        f"{spread.high:+.3f}) on the same test donors: {found}."
    )


def _side_by_side(less: ComparedRun, more: ComparedRun) -> pd.DataFrame:
    """fold, donor, label, and the scores of both: a row for each fold and donor."""
    keys = ["fold", "donor"]
    both = more.donors[[*keys, "label", MODEL]].merge(
        less.donors[[*keys, MODEL]].rename(columns={MODEL: "less"}), on=keys, validate="one_to_one"
    )
    return both.rename(columns={MODEL: "more"})
