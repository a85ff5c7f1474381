"""Which model earns its place on which ground? Fresh simulated cohorts of every scenario, all models on each.

    python -m benchmarks.proof --kept FILE                       hours; goes on from FILE
    python -m benchmarks.proof --scenarios global --cohorts 4 --kept FILE

SIMULATED cohorts of 9 Not AD and 39 High donors, 126 nuclei each on average, five folds of donors. A cohort
follows from its seed; seeds from 1,000 on were used by nobody who chose anything. The table gives donor
AUROC, mean over folds, with its standard error over cohorts, and paired differences of model=donor.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from tqdm import tqdm

from oligo_ad.config import Config, read
from oligo_ad.data.contrast import open_contrast
from oligo_ad.training.refit import open_refit

CONF = Path(__file__).resolve().parent.parent / "conf"
SCENARIOS = ("demo", "states", "weak", "global", "rare", "interaction", "no_signal")
MODELS = ("donor", "mlp_axes", "mlp")
BASELINES = ("pseudobulk", "pls", "axes")  # scored beside the first model
FIRST_SEED = 1000


class Asked(NamedTuple):
    """A model on a cohort."""

    scenario: str
    seed: int
    model: str


def configuration(asked: Asked) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [
            f"data/simulation={asked.scenario}",
            f"data.simulation.seed={asked.seed}",
            f"split.seed={asked.seed}",
            f"model={asked.model}",
            "split=cv",
            "tracker=none",
            f"evaluation.baselines={str(asked.model == MODELS[0]).lower()}",
        ]
        return read(compose("config", overrides=words))


def scored(asked: Asked) -> dict[str, float]:
    """Donor AUROC of a model on a cohort, and with the first of them, of its network and of the baselines."""
    config = configuration(asked)
    folds = open_contrast(config.data, config.split, config.metadata, config.cache.path).folds
    refit = open_refit(config, folds, with_model=True)
    found = refit.auroc_of(refit.contrast)
    wanted = {"model": asked.model, "network": f"{asked.model}, network"} | {name: name for name in BASELINES}
    return {wanted[name]: value for name, value in found.items() if name in wanted}


def results(wanted: list[Asked], kept: Path) -> pd.DataFrame:
    """A row a cohort, a column a predictor; what is new goes into the file as it comes."""
    found: dict[Asked, dict[str, float]] = {}
    for line in kept.read_text().splitlines() if kept.exists() else []:
        content = json.loads(line)
        found[Asked(*content["asked"])] = content["auroc"]
    for asked in tqdm([one for one in wanted if one not in found], unit=" models"):
        found[asked] = scored(asked)
        with kept.open("a") as file:
            file.write(json.dumps({"asked": asked, "auroc": found[asked]}) + "\n")
    rows = [{"scenario": one.scenario, "seed": one.seed, **found[one]} for one in wanted]
    return pd.DataFrame(rows).groupby(["scenario", "seed"], sort=False).first()


def lines(table: pd.DataFrame) -> Iterator[str]:
    """A row a scenario: mean (standard error) of each predictor, and of the paired differences."""
    first = MODELS[0]
    for scenario, own in table.groupby("scenario", sort=False):
        yield f"{scenario}, {len(own)} cohorts"
        for name in own:
            less = own[first] - own[name]
            yield f"  {name:<16} {_mean(own[name])}   {first} minus it {_mean(less, '+')}"


def _mean(values: pd.Series, sign: str = "") -> str:
    known = values.dropna()
    error = known.std() / np.sqrt(len(known)) if len(known) > 1 else float("nan")
    return f"{known.mean():{sign}.3f} (SE {error:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kept", type=Path, required=True, help="a file of what was found, to go on from")
    parser.add_argument("--cohorts", type=int, default=20, help="of each scenario")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first cohort")
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument("--models", nargs="+", default=MODELS, help="of conf/model/")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.cohorts)
    wanted = [Asked(*one) for one in _every(given.scenarios, seeds, given.models)]
    print("SIMULATED. " + "\n".join(lines(results(wanted, given.kept))))


def _every(scenarios: list[str], seeds: range, models: list[str]) -> Iterator[tuple[str, int, str]]:
    """Cohort by cohort, so that a file that is cut off holds all models of most cohorts."""
    for seed in seeds:
        for scenario in scenarios:
            for model in models:
                yield scenario, seed, model


if __name__ == "__main__":
    main()
