"""Prepared cohorts, simulated atlases and vectors of pretrained models on disk: made once, shared by all
runs and sweeps.

A cohort is keyed by its file's fingerprint and the choices, built once under a lock, checked by
checksum when read, and published by rename, so that a broken build is never trusted.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from oligo_ad.config import DataConfig, SimulationConfig
from oligo_ad.data.cohort import SHAPING, Cohort, build
from oligo_ad.data.sums import DonorSums
from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import Atlas, open_atlas
from oligo_ad.storage.expression import Expression
from oligo_ad.storage.matrix import open_matrix

log = logging.getLogger(__name__)

FRAMES = ("cells", "genes", "donors", "steps")
# What a build that broke off, or a check that failed, leaves behind.
LEFT = {".partial": "unfinished", ".damaged": "damaged, set aside"}
MADE = re.compile(
    r"cohort-[0-9a-f]{16}(\.partial|\.damaged)?|SIMULATED-[0-9a-f]{12}\.(h5ad|partial)"
    r"|embedding-[0-9a-f]{16}\.(safetensors|partial)"
)
OWNER = {"cohort": "", "SIMULATED": ".h5ad", "embedding": ".safetensors"}
SUMS, MANIFEST = "sums.npy", "manifest.json"


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
            cohort = _build(atlas, config, folder)
    log.info(
        "cohort: %s nuclei prepared into %s (%s)", f"{len(cohort.cells):,}", folder, megabytes(size(folder))
    )
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
    from oligo_ad.simulation.simulate import write_atlas

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
        raise UserError(f"the cache {cache} cannot be used: {error}. Choose cache.dir=DIR.") from error


def _code() -> str:
    """What prepared data also depend on: the code of this folder. A change of it makes them anew."""
    here = Path(__file__).parent
    sources = sorted([*here.glob("*.py"), *here.parent.glob("storage/*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def _key(path: Path, config: DataConfig) -> str:
    """Fingerprint of the file and of the choices that shape the cohort."""
    digest = hashlib.sha256(_code().encode())
    for part in _fingerprint(path):
        digest.update(part)
    choices = {field: getattr(config, field) for field in SHAPING}
    digest.update(json.dumps(choices, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _fingerprint(path: Path) -> Iterator[bytes]:
    """Size, time and both ends of a file; names, sizes and times of all files of a zarr store."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        stat = file.stat()
        yield f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}".encode()
    if path.is_file():
        with path.open("rb") as opened:
            yield opened.read(1 << 20)
            opened.seek(max(0, path.stat().st_size - (1 << 20)))
            yield opened.read()


def _build(atlas: Atlas, config: DataConfig, folder: Path) -> Cohort:
    """Build beside `folder`, then rename: the folder exists only when it is whole."""
    staging = folder.with_suffix(".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        cohort = build(atlas, config, staging)
        _complete(cohort, staging)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return cohort


def _complete(cohort: Cohort, folder: Path) -> None:
    """Everything of a cohort beside its matrix, and a manifest with the checksum of every file."""
    np.save(folder / SUMS, cohort.sums.values)
    for name in FRAMES:
        getattr(cohort, name).to_parquet(folder / f"{name}.parquet")
    manifest = {
        "files": _checksums(sorted(folder.iterdir())),
        "shape": cohort.matrix.shape,
        "expression": asdict(cohort.expression),
        "simulated": cohort.simulated,
        "about": cohort.about,
        "notes": cohort.notes,
        "varying": cohort.varying,
    }
    manifest["manifest"] = _checksum_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _read(folder: Path) -> Cohort | None:
    """The cohort in `folder`; None, after setting the folder aside, where it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest.pop("manifest") != _checksum_of(manifest):
            raise ValueError(f"{MANIFEST} changed since it was written")
        found = _checksums([folder / name for name in manifest["files"]])
        if wrong := [name for name, checksum in manifest["files"].items() if found[name] != checksum]:
            raise ValueError(f"{', '.join(wrong)} changed since it was written")
    except (OSError, ValueError, KeyError) as error:
        aside = folder.with_suffix(".damaged")
        log.warning("the cached cohort is damaged (%s): set aside as %s, built anew", error, aside)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        return None
    return Cohort(
        matrix=open_matrix(folder, manifest["shape"][1]),
        sums=DonorSums(np.load(folder / SUMS)),
        expression=Expression(**manifest["expression"]),
        simulated=manifest["simulated"],
        about=manifest["about"],
        notes=tuple(manifest["notes"]),
        varying=manifest["varying"],
        **{name: _frame(folder / f"{name}.parquet") for name in FRAMES},
    )


def _frame(file: Path) -> pd.DataFrame:
    """A parquet file, read without Arrow's threads: they may abort a process that ends while they wait
    (apache/arrow#34314)."""
    table = pq.read_table(str(file), use_threads=False, pre_buffer=False)
    return table.to_pandas(use_threads=False)


def _checksum_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _checksums(files: list[Path]) -> dict[str, str]:
    """By name. SHA-256: processors compute it faster than the newer digests of the standard library."""

    def checksum(file: Path) -> str:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return dict(zip((file.name for file in files), pool.map(checksum, files), strict=True))


def kept_array(cache: Path, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is made once, and read from the cache ever after.

    Args:
        cache: the folder.
        name: says all that the array depends on.
        make: called where the cache has no such array, or a damaged one.
    """
    path = cache / f"{name}.safetensors"
    with _locked(cache, path):
        if path.exists():
            try:
                with safe_open(path, "np") as file:
                    array, checksum = file.get_tensor("values"), (file.metadata() or {}).get("sha256")
                if _sha256(array) == checksum:
                    log.info("%s: from the cache %s", name.split("-")[0], path)
                    return array
            except SafetensorError as error:
                log.warning("%s: %s", path, error)
            log.warning("%s is damaged: made anew", path)
        array = np.ascontiguousarray(make())
        partial = path.with_suffix(".partial")
        save_file({"values": array}, partial, metadata={"sha256": _sha256(array)})
        partial.rename(path)
    return array


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.data).hexdigest()


def describe(cache: Path) -> str:
    """What a cache holds, a line each, and how large it is."""
    lines, total = [f"cache.dir={cache}"], 0
    for path in _made(cache):
        with _locked(cache, _owner(path)):
            if not path.exists():
                continue
            n_bytes = size(path)
            total += n_bytes
            written = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
            lines.append(f"  {megabytes(n_bytes):>12}  {written}  {path.name:<32} {_about(path)}")
    return "\n".join(
        [*lines, f"  {megabytes(total):>12}  in all; `python run.py task=clear_cache` removes it"]
    )


def clear(cache: Path) -> str:
    """Remove everything that was made in a cache, and nothing else; what runs have open stays readable."""
    freed = 0
    for path in _made(cache):
        with _locked(cache, _owner(path)):
            # What was unfinished when it was listed may have been finished or removed meanwhile.
            if path.exists():
                freed += size(path)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"{megabytes(freed)} removed from {cache}"


def size(path: Path) -> int:
    """Bytes of a file or of a folder's files."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


def megabytes(n_bytes: int) -> str:
    """Bytes as a reader likes them."""
    return f"{n_bytes / 1e6:,.1f} MB"


def _made(cache: Path) -> list[Path]:
    """What this module made: a folder is the user's, who may keep other things in it."""
    return sorted(path for path in cache.glob("*") if MADE.fullmatch(path.name))


def _owner(path: Path) -> Path:
    """The finished name of what is unfinished or set aside: its lock is the one to take."""
    if path.suffix not in LEFT:
        return path
    return path.with_suffix(OWNER[path.name.split("-")[0]])


def _about(path: Path) -> str:
    if path.suffix in LEFT:
        return LEFT[path.suffix]
    if path.is_file():
        return "simulated atlas" if path.name.startswith("SIMULATED") else "vectors of a pretrained model"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        nuclei, genes = manifest["shape"]
        return f"{nuclei:,} nuclei x {genes:,} genes of {manifest['about']['file']}"
    except (OSError, ValueError, KeyError):
        return "damaged"
