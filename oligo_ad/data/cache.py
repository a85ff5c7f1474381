"""Prepared cohorts and simulated atlases on disk: made once, shared by all runs and sweeps.

A cohort is keyed by its file's fingerprint and the choices, built once under a lock, checked by
checksum when read, and published by rename, so that a broken build is never trusted.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from filelock import FileLock

from oligo_ad.config import DataConfig, SimulationConfig
from oligo_ad.data.atlas import open_atlas
from oligo_ad.data.cohort import Cohort, build
from oligo_ad.data.expression import Expression
from oligo_ad.errors import UserError

log = logging.getLogger(__name__)

ARRAYS = ("data", "indices", "indptr")
FRAMES = ("cells", "genes", "donors", "flow", "excluded")


def load_cohort(config: DataConfig, cache: Path) -> Cohort:
    """The prepared cohort, from the cache or built now.

    Raises:
        UserError: anything wrong with the file or the choices; nothing is left in the cache then.
    """
    # The file is opened even when the cache will do: a wrong path is told at once.
    with open_atlas(source(config, cache)) as atlas:
        folder = cache / f"cohort-{_key(atlas.path, config)}"
        with _locked(cache, folder):
            if folder.exists() and (cohort := _read(folder)):
                log.info("cohort: %s nuclei from the cache %s", f"{len(cohort.cells):,}", folder)
                return cohort
            cohort = build(atlas, config)
            _publish(cohort, folder)
    log.info("cohort: %s nuclei prepared into %s", f"{len(cohort.cells):,}", folder)
    return cohort


def source(config: DataConfig, cache: Path) -> Path:
    """The h5ad file that a configuration means; a simulated one is written now unless it is there."""
    if config.simulation:
        if config.path:
            raise UserError(
                f"data={config.name} simulates its file, so data.path={config.path} has no use. For your "
                "own file add data=sea_ad or data=anndata."
            )
        return _simulated_file(config.simulation, cache)
    if config.path is None:
        raise UserError(f"data={config.name} needs a file: add data.path=/path/to/file.h5ad.")
    return Path(config.path).expanduser()


def _simulated_file(simulation: SimulationConfig, cache: Path) -> Path:
    from oligo_ad.data.demo import write_atlas

    written = json.dumps(asdict(simulation), sort_keys=True)
    key = hashlib.sha256(f"{_code()}{written}".encode()).hexdigest()[:12]
    path = cache / f"SIMULATED-{key}.h5ad"
    with _locked(cache, path):
        if not path.exists():
            log.info("writing a SIMULATED atlas to %s", path)
            partial = path.with_suffix(".partial")
            write_atlas(partial, simulation)
            partial.rename(path)
    return path


@contextmanager
def _locked(cache: Path, what: Path) -> Iterator[None]:
    """One process at a time makes `what`; a cache that cannot be written is the user's to mend."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{what}.lock"):
            yield
    except OSError as error:
        raise UserError(f"the cache {cache} cannot be used: {error}. Choose cache=DIR.") from error


def _code() -> str:
    """What prepared data also depend on: the code of this folder. A change of it makes them anew."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def _key(path: Path, config: DataConfig) -> str:
    """Fingerprint of the file (size, time, both ends) and of the choices that shape the cohort."""
    stat = path.stat()
    digest = hashlib.sha256(f"{_code()} {stat.st_size} {stat.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, stat.st_size - (1 << 20)))
        digest.update(file.read())
    choices = {k: v for k, v in asdict(config).items() if k not in ("name", "path", "simulation")}
    digest.update(json.dumps(choices, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _publish(cohort: Cohort, folder: Path) -> None:
    """Write beside `folder`, then rename: the folder exists only when it is whole."""
    staging = folder.with_suffix(".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    few_genes = cohort.matrix.shape[1] <= np.iinfo(np.uint16).max
    for name in ARRAYS:
        array = getattr(cohort.matrix, name)
        np.save(
            staging / f"{name}.npy", array.astype(np.uint16) if name == "indices" and few_genes else array
        )
    for name in FRAMES:
        getattr(cohort, name).to_parquet(staging / f"{name}.parquet")
    manifest = {
        "files": {file.name: _checksum(file) for file in sorted(staging.iterdir())},
        "shape": cohort.matrix.shape,
        "expression": asdict(cohort.expression),
        "simulated": cohort.simulated,
        "about": cohort.about,
        "notes": cohort.notes,
    }
    manifest["manifest"] = _checksum_of(manifest)
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=1))
    staging.rename(folder)


def _read(folder: Path) -> Cohort | None:
    """The cohort in `folder`; None, after setting the folder aside, where it is damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest.pop("manifest") != _checksum_of(manifest):
            raise ValueError("manifest.json changed since it was written")
        if wrong := [n for n, sum_ in manifest["files"].items() if _checksum(folder / n) != sum_]:
            raise ValueError(f"{', '.join(wrong)} changed since it was written")
    except (OSError, ValueError, KeyError) as error:
        aside = folder.with_suffix(".damaged")
        log.warning("the cached cohort is damaged (%s): set aside as %s, built anew", error, aside)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        return None
    arrays = [np.load(folder / f"{name}.npy") for name in ARRAYS]
    matrix = sp.csr_matrix((arrays[0], arrays[1].astype(np.int32), arrays[2]), manifest["shape"])
    return Cohort(
        matrix=matrix,
        expression=Expression(**manifest["expression"]),
        simulated=manifest["simulated"],
        about=manifest["about"],
        notes=tuple(manifest["notes"]),
        **{name: pd.read_parquet(folder / f"{name}.parquet") for name in FRAMES},
    )


def _checksum_of(manifest: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:32]


def _checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()[:32]
