"""Speed of reading the chosen nuclei of a large h5ad, against other ways of reading them.

    python benchmarks/prepare.py            120,000 SIMULATED nuclei x 36,601 genes, gzip
    python benchmarks/prepare.py --plain    the same file, not compressed

The first call writes the file (8 minutes, 2.6 GB; without compression 6.2 GB).
"""

import argparse
import hashlib
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from side_by_side import Job, main

from oligo_ad.config import DataConfig, SimulationConfig
from oligo_ad.data.cache import load_cohort
from oligo_ad.data.cohort import Cohort
from oligo_ad.simulation.simulate import write_atlas
from oligo_ad.storage.atlas import open_atlas
from oligo_ad.storage.chunks import Direct, open_vector

COUNTS = "layers/UMIs"


def file_of(options: argparse.Namespace) -> Path:
    """The benchmark's file, written where it is missing, stored as AnnData stores one."""
    options.folder.mkdir(parents=True, exist_ok=True)
    simulated = options.folder / f"atlas-{options.nuclei}x36601.h5ad"
    if not simulated.exists():
        like = SimulationConfig(
            nuclei=options.nuclei, genes=36601, effect=1, interaction=0.5, confounding=1,
            oligodendrocytes=0.2, seed=0,
        )  # fmt: skip
        write_atlas(partial := simulated.with_suffix(".partial"), like)
        partial.rename(simulated)
    path = simulated.with_suffix(".plain.h5ad" if options.plain else ".gzip.h5ad")
    if not path.exists():
        _store_again(simulated, partial := path.with_suffix(".partial"), None if options.plain else "gzip")
        partial.rename(path)
    return path


def _store_again(path: Path, copy: Path, compression: str | None) -> None:
    """Copy with the chunks and the level of compression that `write_h5ad` takes."""
    with h5py.File(path) as source, h5py.File(copy, "w") as target:
        target.attrs.update(source.attrs)
        for name in set(source) - {"X", "layers"}:
            source.copy(name, target)
        target.create_group("layers").attrs.update(source["layers"].attrs)
        for matrix in ("X", COUNTS):
            group = target.create_group(matrix)
            group.attrs.update(source[matrix].attrs)
            group["indptr"] = source[matrix]["indptr"][:]
            for name in ("data", "indices"):
                stored = source[matrix][name]
                shape, options = stored.shape, {"maxshape": (None,), "compression": compression}
                again = group.create_dataset(name, shape, stored.dtype, **options)
                for first in range(0, len(stored), 1 << 24):
                    again[first : first + (1 << 24)] = stored[first : first + (1 << 24)]


def wanted(path: Path) -> np.ndarray:
    """Oligodendrocytes of donors of the two classes [nuclei] bool: about 12 % of the rows, interleaved."""
    with open_atlas(path) as atlas:
        classes = atlas.column("ADNC").isin(["High", "Not AD"])
        return (classes & (atlas.column("Subclass") == "Oligodendrocyte")).to_numpy()


def checksum(counts: sp.csr_matrix) -> str:
    """Of values, genes and row pointers, whatever their integer types."""
    digest = hashlib.sha256(counts.data.astype(np.float32).tobytes())
    for indices in (counts.indices, counts.indptr):
        digest.update(indices.astype(np.int64).tobytes())
    return digest.hexdigest()


def scanpy(options: argparse.Namespace) -> Job:
    path = file_of(options)
    mask = wanted(path)
    return Job(lambda: sc.read_h5ad(path)[mask].layers["UMIs"].copy(), checksum)


def backed(options: argparse.Namespace) -> Job:
    path = file_of(options)
    mask = wanted(path)
    return Job(lambda: ad.read_h5ad(path, backed="r")[mask].to_memory().layers["UMIs"], checksum)


def sparse_dataset(options: argparse.Namespace) -> Job:
    path = file_of(options)
    mask = wanted(path)

    def read() -> sp.csr_matrix:
        with h5py.File(path) as file:
            return ad.io.sparse_dataset(file[COUNTS])[mask]

    return Job(read, checksum)


def rows(options: argparse.Namespace) -> Job:
    """Our reader of rows, into memory as the other ways."""
    path = file_of(options)
    chosen = np.flatnonzero(wanted(path))

    def read() -> sp.csr_matrix:
        with open_atlas(path) as atlas:
            return sp.vstack(list(atlas.rows(COUNTS, chosen)), format="csr")

    return Job(read, checksum)


def prepared(options: argparse.Namespace) -> Job:
    """All of `task=prepare`: selection, checks, sums by donor, files of the cache and their checksums."""
    path = file_of(options)
    config = DataConfig(
        name="sea_ad", path=str(path), simulation=None, donor_key="Donor ID", label_key="ADNC",
        positive="High", negative="Not AD", cell_type_key="Subclass", cell_types="Oligodendrocyte",
        counts="auto", min_genes=0, min_nuclei=1,
    )  # fmt: skip

    def prepare() -> tuple[tempfile.TemporaryDirectory[str], Cohort]:
        folder = tempfile.TemporaryDirectory(dir=options.folder)
        return folder, load_cohort(config, Path(folder.name))

    return Job(prepare, lambda made: checksum(_two_classes(made[1])))


def _two_classes(cohort: Cohort) -> sp.csr_matrix:
    """What the other ways read: a cohort holds the nuclei of every donor."""
    label = cohort.donors["obs:ADNC"]
    matrix = cohort.of(label.index[label.isin(["High", "Not AD"])]).matrix
    return matrix.columns(np.arange(matrix.n_genes))


def inflating(options: argparse.Namespace) -> Job:
    """The lower bound: reading and decompressing the bytes that hold the counts, on all cores."""
    path = file_of(options)

    def inflate() -> None:
        with h5py.File(path) as file, path.open("rb", buffering=0) as raw, ThreadPoolExecutor() as pool:
            for name in ("data", "indices"):
                stored = file[COUNTS][name]
                vector = open_vector(stored, raw.fileno())
                assert isinstance(vector, Direct)
                deque(pool.map(vector.decompressed, range(-(-len(stored) // stored.chunks[0]))), maxlen=0)

    return Job(inflate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nuclei", type=int, default=120_000)
    parser.add_argument("--plain", action="store_true", help="without compression")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "oligo_ad_benchmark")
    variants = {"scanpy": scanpy, "backed": backed, "sparse_dataset": sparse_dataset, "rows": rows}
    main(variants | {"prepared": prepared, "inflating": inflating}, parser)
