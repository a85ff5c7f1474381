"""The ceiling of each scenario of the simulated atlas: the AUROC by donor of a reader that knows the truth.

It is told which nuclei are affected, or how strongly all nuclei of a donor are shifted, or, where the
disease shows in the interaction alone, whether the two modules of a nucleus go the same way; nothing else
of a donor, and no count. Its score of a donor is the mean over that donor's oligodendrocytes. Donors are
the extra ones of many atlases, as many of each class; each atlas gives one AUROC.

    python benchmarks/ceilings.py [--atlases 40] [--donors 100] [SCENARIO …]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from sklearn.metrics import roc_auc_score

from oligo_ad import config
from oligo_ad.config import SimulationConfig
from oligo_ad.simulation.truth import draw_nuclei, plant

CONF = Path(__file__).resolve().parent.parent / "conf"
SCENARIOS = sorted(file.stem for file in (CONF / "data/simulation").glob("*.yaml"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS, metavar="SCENARIO")
    parser.add_argument("--atlases", type=int, default=40)
    parser.add_argument("--donors", type=int, default=100, help="extra donors of each class in an atlas")
    args = parser.parse_args()
    for name in args.scenarios:
        # No count is drawn, so few genes will do.
        simulation = replace(scenario(name), genes=2000, extra=args.donors)
        found = [ceiling(replace(simulation, seed=seed)) for seed in range(args.atlases)]
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        print(f"{name:<12} {np.mean(found):.3f} ± {error:.3f}")


def scenario(name: str) -> SimulationConfig:
    """The parameters of a scenario."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = config.read(compose("config", overrides=[f"data/simulation={name}"])).data.simulation
    assert found is not None
    return found


def ceiling(simulation: SimulationConfig) -> float:
    """The AUROC of the reader on the extra donors of one atlas."""
    rng = np.random.default_rng(simulation.seed)
    truth = plant(simulation, rng)
    nuclei = draw_nuclei(simulation, truth, rng).query("cell_type == 0")
    score = read(simulation, nuclei).groupby(nuclei["donor"]).mean()
    donors = truth.donors[truth.donors["extra"]]
    return float(roc_auc_score(donors["adnc"] == "High", score.reindex(donors.index).fillna(0)))


def read(simulation: SimulationConfig, nuclei: pd.DataFrame) -> pd.Series:
    """What the reader knows of each nucleus."""
    if simulation.effect == 0 and simulation.interaction > 0:
        return (nuclei["sign_a"] == nuclei["sign_b"]).astype(float)
    return nuclei["affected"].astype(float)


if __name__ == "__main__":
    main()
