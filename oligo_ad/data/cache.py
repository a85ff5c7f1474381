"""The cache: cohorts, simulated atlases and vectors of frozen networks, made once for all runs.

The name of each contains a hash of everything that its content depends on, the code included. It is made
under a lock and appears only when it is whole; cohorts and vectors are checked whenever they are read.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from oligo_ad.config import DataConfig, SimulationConfig
from oligo_ad.data.cohort import SHAPING, Cohort, build
from oligo_ad.data.cohort_files import open_cohort, write_cohort
from oligo_ad.data.depth import DEPTH, require_counts, thinned
from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import Atlas, open_atlas
from oligo_ad.storage.shelf import (
    MANIFEST,
    PARTIAL,
    code_of,
    digest,
    locked,
    published,
    remove,
    seal,
    sealed_facts,
)

log = logging.getLogger(__name__)

HASHED, MOST_FILES = 64 << 20, 4096  # bytes and files that a fingerprint reads
DAMAGED = ".damaged"  # follows the name of a cohort that failed its check
LEFT = {PARTIAL: "unfinished", DAMAGED: "damaged, set aside"}
MADE = re.compile(
    r"(cohort-[0-9a-f]{16}|SIMULATED-[0-9a-f]{12}\.h5ad|embedding-[0-9a-f]{16}\.safetensors)"
    rf"({re.escape(PARTIAL)}|{re.escape(DAMAGED)})?"
)
# What shapes a cohort and its files. This module does not: it only decides when one is made.
COHORT_CODE = ("oligo_ad.data.cohort", "oligo_ad.data.cohort_files")
DEPTH_CODE = "oligo_ad.data.depth"
SIMULATION_CODE = "oligo_ad.simulation.simulate"


def load_cohort(config: DataConfig, cache: Path) -> Cohort:
    """The prepared cohort, from the cache or built now; with `data.match_depth`, its counts are thinned.

    Raises:
        UserError: anything wrong with the file or the choices; nothing is left in the cache then.
    """
    # The file is opened even when the cache has the cohort, so that a wrong path is an error every time.
    with open_atlas(source(config, cache)) as atlas:
        folder = cohort_folder(atlas.path, config, cache)
        if config.match_depth:
            return _thinned(folder, config, lambda: _prepared(folder, config, atlas))
        return _prepared(folder, config, atlas)


def load_matched(cohort: Cohort, config: DataConfig, cache: Path) -> Cohort:
    """A prepared cohort with its counts thinned to a common depth, from the cache or made now.

    Args:
        cohort: what `load_cohort` gives for the same choices, all of it.
        config: these choices, without `data.match_depth`.
        cache: the folder.

    Raises:
        UserError: there are no counts.
    """
    return _thinned(cohort_folder(source(config, cache), config, cache), config, lambda: cohort)


def _thinned(folder: Path, config: DataConfig, prepared: Callable[[], Cohort]) -> Cohort:
    """The thinned form of the cohort that belongs in `folder`; `prepared` gives that one."""
    key = digest([code_of(DEPTH_CODE).encode(), folder.name.encode()])
    own = folder.with_name(f"cohort-{key[:16]}")
    with _locked(own):
        if own.exists() and (kept := _checked(own)):
            log.info("cohort at a common depth: from the cache %s", own)
            return kept
        whole = prepared()
        require_counts(whole)
        with published(own) as staging:
            staging.mkdir()
            made = thinned(whole, staging, config.min_genes)
            seal(staging, write_cohort(made, staging))
    log.info("counts thinned to a common depth: %s (%s)", own, megabytes(size(own)))
    return made


def _prepared(folder: Path, config: DataConfig, atlas: Atlas) -> Cohort:
    """The cohort as it is in the file, in its folder.

    Raises:
        UserError: anything wrong with the file or the choices; nothing is left in the cache then.
    """
    with _locked(folder):
        if folder.exists() and (cohort := _checked(folder)):
            log.info("cohort: %s nuclei from the cache %s", f"{len(cohort.cells):,}", folder)
            return cohort
        cohort = _built(atlas, config, folder)
    log.info(
        "cohort: %s nuclei prepared into %s (%s)", f"{len(cohort.cells):,}", folder, megabytes(size(folder))
    )
    return cohort


def source(config: DataConfig, cache: Path) -> Path:
    """The h5ad file of a configuration; a simulated one is written now unless it is there."""
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


def simulated_path(simulation: SimulationConfig, cache: Path) -> Path:
    """Where a simulated atlas belongs, named by the code and the parameters that shape it."""
    parameters = json.dumps(asdict(simulation), sort_keys=True)
    key = digest([code_of(SIMULATION_CODE).encode(), parameters.encode()])
    return cache / f"SIMULATED-{key[:12]}.h5ad"


def _simulated_file(simulation: SimulationConfig, cache: Path) -> Path:
    from oligo_ad.simulation.simulate import write_atlas

    path = simulated_path(simulation, cache)
    with _locked(path):
        if not path.exists():
            _check_space(simulation, path.parent)
            log.info("writing a SIMULATED atlas to %s", path)
            with published(path) as staging:
                write_atlas(staging, simulation)
    return path


def _check_space(simulation: SimulationConfig, folder: Path) -> None:
    """Refuse a disk that has no room for a simulated atlas: HDF5 ends the process where it runs out of it."""
    # Bytes of a nucleus, in both matrices; measured for 200 to 36,601 genes, and a little more.
    nuclei = simulation.nuclei * (1 + simulation.extra / 30)  # of 81 donors; extra ones have more than most
    needed = int(nuclei * min(1000 + 3 * simulation.genes, 15_000)) + (4 << 20)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"the simulated atlas needs about {megabytes(needed)}, and {folder} has {megabytes(free)} free. "
            "Free some, choose another cache.dir=DIR, or lower data.simulation.nuclei."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of something in the cache.

    Raises:
        UserError: the cache cannot be written, or the block met an error of the operating system.
    """
    try:
        with locked(path):
            yield
    except OSError as error:
        raise UserError(f"the cache {path.parent} cannot be used: {error}. Choose cache.dir=DIR.") from error


def cohort_folder(path: Path, config: DataConfig, cache: Path) -> Path:
    """Where the cohort of a file belongs, named by the code, the file and the choices that shape it."""
    choices = {field: getattr(config, field) for field in SHAPING}
    written = json.dumps(choices, sort_keys=True)
    key = digest([code_of(*COHORT_CODE).encode(), *_version(path), written.encode()])
    return cache / f"cohort-{key[:16]}"


def _version(path: Path) -> Iterator[bytes]:
    """What tells a file from a changed one at a glance: size, time and both ends; of a zarr store the names,
    sizes and times of all its files."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        stat = file.stat()
        yield f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}".encode()
    if path.is_file():
        with path.open("rb") as opened:
            yield opened.read(1 << 20)
            opened.seek(max(0, path.stat().st_size - (1 << 20)))
            yield opened.read()


def fingerprint(path: Path) -> str:
    """A hash of the content of a file or folder, whenever and wherever it was copied.

    Names and sizes of all files count, and what is in them up to `HASHED` bytes: of small files all, of a
    larger one its ends and pieces evenly between.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    sizes = {file: file.stat().st_size for file in files}
    parts = [f"{file.relative_to(path)} {size}".encode() for file, size in sizes.items()]
    left = HASHED
    for file in sorted(files, key=lambda file: (sizes[file], file))[:MOST_FILES]:
        if left > 0:
            parts.append(_sample(file, sizes[file], left).encode())
            left -= sizes[file]
    return digest(parts)[:32]


def _sample(file: Path, size: int, most: int) -> str:
    """A hash of a file, or of pieces of 1 MiB, the first at its start and the last at its end."""
    piece = 1 << 20
    starts = (
        [0] if size <= most else np.linspace(0, max(0, size - piece), max(2, most // piece), dtype=np.int64)
    )
    with file.open("rb") as opened:
        return digest(_pieces(opened, starts, size if size <= most else piece))


def _pieces(opened: BinaryIO, starts: Iterable[int], length: int) -> Iterator[bytes]:
    for start in starts:
        opened.seek(int(start))
        left = length
        while left > 0 and (read := opened.read(min(left, 1 << 20))):
            yield read
            left -= len(read)


def _built(atlas: Atlas, config: DataConfig, folder: Path) -> Cohort:
    """The cohort, built into `folder`."""
    with published(folder) as staging:
        staging.mkdir()
        cohort = build(atlas, config, staging)
        seal(staging, write_cohort(cohort, staging))
    return cohort


def _checked(folder: Path) -> Cohort | None:
    """The cohort in `folder`; None, after setting the folder aside, where it is damaged."""
    try:
        facts = sealed_facts(folder)
    except (OSError, ValueError, KeyError) as error:
        aside = folder.with_name(folder.name + DAMAGED)
        log.warning("the cached cohort is damaged (%s): set aside as %s, built anew", error, aside)
        remove(aside)
        folder.rename(aside)
        return None
    return open_cohort(folder, facts)


def kept_array(cache: Path, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is made once and read from the cache from then on.

    Args:
        cache: the folder.
        name: contains a hash of all that the array depends on.
        make: called where the cache has no such array, or a damaged one.
    """
    path = cache / f"{name}.safetensors"
    with _locked(path):
        if path.exists() and (kept := _checked_array(path)) is not None:
            return kept
        array = np.ascontiguousarray(make())
        with published(path) as staging:
            save_file({"values": array}, staging, metadata={"sha256": digest([array.data])})
    return array


def _checked_array(path: Path) -> np.ndarray | None:
    """The array in a file; None where the file is damaged."""
    try:
        with safe_open(path, "np") as file:
            array, checksum = file.get_tensor("values"), (file.metadata() or {}).get("sha256")
        if digest([array.data]) == checksum:
            return array
    except SafetensorError as error:
        log.warning("%s: %s", path, error)
    log.warning("%s is damaged: made anew", path)
    return None


def describe(cache: Path) -> str:
    """What a cache holds, a line each, and how large it is."""
    lines, total, vectors = [f"cache.dir={cache}"], 0, list[int]()
    for path in _made(cache):
        with _locked(_finished(path)):
            if not path.exists():
                continue
            n_bytes = size(path)
            total += n_bytes
            if path.suffix == ".safetensors":  # one a donor: too many for a line each
                vectors.append(n_bytes)
                continue
            written = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
            lines.append(f"  {megabytes(n_bytes):>12}  {written}  {path.name:<32} {_about(path)}")
    if vectors:
        lines.append(f"  {megabytes(sum(vectors)):>12}  vectors of frozen networks, of {len(vectors)} donors")
    lines.append(f"  {megabytes(total):>12}  in all; `python run.py task=clear_cache` removes it")
    return "\n".join(lines)


def clear(cache: Path) -> str:
    """Remove everything that was made in a cache, and nothing else. Runs keep the files they have open."""
    freed = 0
    for path in _made(cache):
        with _locked(_finished(path)):
            # What was unfinished when it was listed may have been finished or removed meanwhile.
            if path.exists():
                freed += size(path)
                remove(path)
    return f"{megabytes(freed)} removed from {cache}"


def size(path: Path) -> int:
    """Bytes of a file or of a folder's files."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


def megabytes(n_bytes: int) -> str:
    """A number of bytes, for people."""
    return f"{n_bytes / 1e6:,.1f} MB"


def _made(cache: Path) -> list[Path]:
    """Files and folders that this module made: the user may keep others in the cache."""
    return sorted(path for path in cache.glob("*") if MADE.fullmatch(path.name))


def _finished(path: Path) -> Path:
    """The final path of what is unfinished or set aside: its lock is named after that."""
    return path.with_suffix("") if path.suffix in LEFT else path


def _about(path: Path) -> str:
    if path.suffix in LEFT:
        return LEFT[path.suffix]
    if path.is_file():
        return "simulated atlas"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        nuclei, genes = manifest["shape"]
        about = manifest["about"]
        depth = ", at a common depth" if DEPTH in about else ""
        return f"{nuclei:,} nuclei x {genes:,} genes of {about['file']}{depth}"
    except (OSError, ValueError, KeyError):
        return "damaged"
