"""Do the models still give the numbers of the first version? Eleven small runs and searches, to the bit.

    python benchmarks/reference.py            run all, compare with tests/reference/metrics.json.gz
    python benchmarks/reference.py --write    keep this version's numbers instead
    python benchmarks/reference.py mlp_cv     some of them

The stored numbers are those of every metrics.json that the first version (commit 2cf3050) left, times apart;
they were made with PyTorch 2.13 on one thread of an x86 processor. Another processor may differ in last bits,
and training then carries such a difference further: what counts is equality before and after a change, on one
machine. A refactor leaves all of them equal.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.builders import scgpt_folder  # noqa: E402 found from the root

STORED = ROOT / "tests/reference/metrics.json.gz"
REAL = ROOT.parent / "shared/data/velmeshev2019_asd_pfc_glia_counts.h5ad"
TIMES = ("seconds", "nuclei_per_second", "environment")
SMALL = (
    "device=cpu tracker=none data.simulation.nuclei=3000 data.simulation.genes=500 fit.epochs=2 "
    "fit.batch_size=32"
)
PANEL = f"{SMALL} model.featurizer.n_genes=100"
SCGPT = f"{SMALL} model=scgpt model.featurizer.max_len=120"
FROZEN = f"{SMALL} model=scgpt_frozen model.featurizer.featurizer.max_len=120"
CV = "split=cv split.folds=3"
RUNS = {
    "mlp_holdout": PANEL,
    "mlp_cv": f"{PANEL} {CV} metadata=on",
    "transformer_holdout": f"{PANEL} model=transformer",
    "transformer_cv": f"{PANEL} model=transformer {CV} evaluation.threshold=validation",
    "scgpt_random_holdout": f"{SCGPT} model.pretrained=false",
    "scgpt_cv": f"{SCGPT} {CV}",
    "scgpt_frozen_holdout": FROZEN,
    "scgpt_frozen_cv": f"{FROZEN} {CV}",
    "velmeshev_mlp_cv": f"data=anndata data.path={REAL} data.donor_key=donor_id data.label_key=diagnosis "
    "data.positive=ASD data.negative=Control data.cell_type_key=cell_type data.cell_types=[Microglia] "
    f"{CV} fit.epochs=2 tracker=none device=cpu",
    "search": f"{PANEL} sweep=mlp sweep.trials=3 sweep.seeds=[0,1]",
    "search_cv": f"{PANEL} sweep=mlp sweep.trials=2 {CV}",
}


def metrics_of(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The numbers of each metrics.json of a run or search, by its place."""
    kind = "sweep" if name.startswith("search") else "run"
    checkpoint = [f"model.checkpoint={folder / 'scgpt'}"] if "scgpt" in name else []
    words = [*RUNS[name].split(), *checkpoint, f"hydra.{kind}.dir={folder / name}"]
    environment = {"OLIGO_AD_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "run.py", *words]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True)
    files = sorted((folder / name).rglob("metrics.json"))
    return {
        str(file.parent.relative_to(folder)): dict(numbers(json.loads(file.read_text()))) for file in files
    }


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every number but times, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in TIMES:
                yield from numbers(inner, f"{place}/{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from numbers(inner, f"{place}/{i}")
    elif isinstance(value, int | float):
        yield place, value


def compared(before: dict[str, float], after: dict[str, float]) -> str:
    """How many numbers are equal, and how far the others are apart."""
    both = before.keys() & after.keys()
    apart = [abs(before[place] - after[place]) for place in both if before[place] != after[place]]
    gone = f", {len(before) - len(both)} gone" if len(both) < len(before) else ""
    furthest = f", the furthest by {max(apart):.2g}" if apart else ""
    return f"{len(both) - len(apart)} numbers equal, {len(apart)} differ{furthest}{gone}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--write", action="store_true", help="keep the numbers of this version")
    options = parser.parse_args()
    stored = json.loads(gzip.decompress(STORED.read_bytes())) if STORED.exists() else {}
    with tempfile.TemporaryDirectory() as opened:
        folder = Path(opened)
        genes = pd.read_csv(ROOT / "oligo_ad/simulation/genes.csv.gz").nlargest(500, "per_million")
        scgpt_folder(folder / "scgpt", genes["symbol"].tolist())
        for name in options.names or [name for name in RUNS if REAL.exists() or "velmeshev" not in name]:
            for place, found in metrics_of(name, folder).items():
                print(f"{place:<28} {compared(stored.get(place, {}), found)}", flush=True)
                if options.write:
                    stored[place] = found
    if options.write:
        STORED.write_bytes(gzip.compress(json.dumps(stored, sort_keys=True).encode(), mtime=0))


if __name__ == "__main__":
    main()
