"""obs and var are read as anndata reads them, in every form that it has written since its first release."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from oligo_ad.storage.atlas import open_atlas
from tests import builders
from tests.builders import answer, assert_says

WORDS = h5py.string_dtype()
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def columns(path: Path) -> pd.DataFrame:
    """obs as this program reads it, whole and in parts."""
    with open_atlas(path) as atlas:
        rows = np.arange(atlas.n_obs)
        frame = pd.DataFrame({name: atlas.column(name) for name in atlas.columns})
        odd = pd.DataFrame({name: atlas.column(name, rows[1::2]) for name in atlas.columns})
        pd.testing.assert_frame_equal(frame[1::2].reset_index(drop=True), odd, check_dtype=False)
        return frame.set_index(atlas.barcodes(rows))


def rich(folder: Path) -> ad.AnnData:
    adata = builders.atlas(4, 3, nuclei=4, genes=12)
    n = len(adata)
    adata.obs["whole"] = pd.array(np.arange(n), dtype="Int64")
    adata.obs.loc[adata.obs_names[3], "whole"] = pd.NA
    adata.obs["yes"] = pd.array(np.arange(n) % 2 == 0, dtype="boolean")
    adata.obs["plain yes"] = np.arange(n) % 3 == 0
    adata.obs["level"] = pd.Categorical(np.arange(n) % 3)
    adata.obs["order"] = pd.Categorical(["low", "high"] * (n // 2), ["low", "high"], ordered=True)
    adata.obs["word"] = [f"é{i}" for i in range(n)]
    adata.obs["none"] = pd.Categorical([None] * n, ["a"])
    return adata


def as_0_7(path: Path) -> Path:
    """Categoricals as anndata 0.7 stored them: codes that refer to their levels in a group of their own."""
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs.attrs["encoding-version"] = "0.1.0"
        group = obs.create_group("__categories")
        for name in [name for name in obs if isinstance(obs[name], h5py.Group) and "codes" in obs[name]]:
            levels, codes = obs[name]["categories"][:], obs[name]["codes"][:]
            ordered = obs[name].attrs["ordered"]
            del obs[name]
            kind = {"dtype": WORDS} if levels.dtype.kind == "O" else {}
            stored = group.create_dataset(name, data=levels, **kind)
            stored.attrs["ordered"] = ordered
            obs.create_dataset(name, data=codes).attrs["categories"] = stored.ref
    return path


def same(folder: Path, change: Callable[[Path], Path]) -> Path:
    return change(builders.write(rich(folder), folder))


@pytest.mark.parametrize("change", [lambda path: path, as_0_7], ids=["today", "0.7"])
def test_columns_are_as_anndata_reads_them(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    path = same(tmp_path, change)
    expected = ad.read_h5ad(path).obs
    found = columns(path)
    pd.testing.assert_frame_equal(
        found, expected, check_names=False, check_dtype=False, check_index_type=False
    )
    assert [str(kind) for kind in found.dtypes] == [str(kind) for kind in expected.dtypes]


def test_an_atlas_of_0_7_gives_the_cohort_of_today(tmp_path: Path) -> None:
    new = builders.read(builders.write(builders.atlas(), tmp_path, "new.h5ad"))
    old = builders.read(as_0_7(builders.write(builders.atlas(), tmp_path)))
    pd.testing.assert_frame_equal(old.cells, new.cells)
    pd.testing.assert_frame_equal(old.donors, new.donors, check_dtype=False)


def table(frame: pd.DataFrame, levels: dict[str, Any]) -> np.ndarray:
    """A table as anndata 0.6 stored it: an array of records, codes in place of categoricals."""
    arrays = {"index": frame.index.to_numpy().astype("S")}
    for name in frame:
        if frame[name].dtype == "category":
            levels[name] = frame[name].cat.categories.to_numpy().astype("S")
            arrays[name] = frame[name].cat.codes.to_numpy()
        else:
            arrays[name] = frame[name].to_numpy()
    return np.rec.fromarrays(list(arrays.values()), names=list(arrays))


def as_0_6(path: Path, adata: ad.AnnData) -> Path:
    levels: dict[str, Any] = {}
    with h5py.File(path, "w") as file:
        file["obs"], file["var"] = table(adata.obs, levels), table(adata.var, {})
        file["raw.var"] = table(adata.var, {})
        for name, values in levels.items():
            file[f"uns/{name}_categories"] = values
        for name, matrix in (("X", sp.csr_matrix(np.log1p(adata.X.toarray()))), ("raw.X", adata.X)):
            group = file.create_group(name)
            group.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": matrix.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(matrix, part)
    return path


def test_an_atlas_of_0_6_gives_the_cohort_of_today(tmp_path: Path) -> None:
    new = builders.read(builders.write(builders.atlas(), tmp_path, "new.h5ad"))
    old = builders.read(as_0_6(tmp_path / "old.h5ad", builders.atlas()))
    assert old.expression.matrix == "raw/X"
    pd.testing.assert_frame_equal(old.cells, new.cells)
    assert old.genes["name"].tolist() == new.genes["name"].tolist()
    np.testing.assert_array_equal(builders.counts(old), builders.counts(new))


def test_text_of_bytes_is_decoded(tmp_path: Path) -> None:
    path = builders.write(builders.atlas(), tmp_path)
    before = columns(path)
    with h5py.File(path, "r+") as file:
        for name in ("obs/_index", "obs/Donor ID/categories", "var/_index"):
            values = np.array([word.encode() for word in file[name].asstr()[:]])
            attributes = dict(file[name].attrs)
            del file[name]
            file[name] = values
            file[name].attrs.update(attributes)
    after = columns(path)
    assert after.index.tolist() == before.index.tolist()
    assert after["Donor ID"].tolist() == before["Donor ID"].tolist()


def test_levels_that_are_not_there_are_damage(tmp_path: Path) -> None:
    path = as_0_7(builders.write(builders.atlas(), tmp_path))
    with h5py.File(path, "r+") as file:
        del file["obs/__categories/Donor ID"]
    assert_says(answer(builders.read, path), "obs column 'Donor ID'", "damaged")


def test_an_x_that_is_null_is_no_matrix(tmp_path: Path) -> None:
    adata = builders.atlas()
    adata.layers["counts"] = adata.X.copy()
    adata.X = None
    path = builders.write(adata, tmp_path)
    assert builders.read(path).expression.matrix == "layers/counts"
    with h5py.File(path, "r+") as file:
        file["X"] = h5py.Empty("f")
        file["X"].attrs["encoding-type"] = "null"
    assert builders.read(path).expression.matrix == "layers/counts"
    adata.write_zarr(tmp_path / "atlas.zarr")
    assert builders.read(tmp_path / "atlas.zarr").expression.matrix == "layers/counts"
    with h5py.File(path, "r+") as file:
        del file["layers/counts"]
    assert_says(answer(builders.read, path), "holds no AnnData: it has no X")


def test_a_layer_that_is_no_matrix_is_no_candidate(tmp_path: Path) -> None:
    path = builders.write(builders.atlas(), tmp_path)
    with h5py.File(path, "r+") as file:
        file["layers/words"] = np.array([b"a", b"b"])
        file["layers/cube"] = np.zeros((2, 2, 2))
        file.create_group("layers/group")
    assert builders.read(path).expression.matrix == "X"


@pytest.mark.parametrize("part", ["data", "indices"])
def test_chunks_that_hdf5_never_wrote_are_damage(tmp_path: Path, part: str) -> None:
    path = builders.write(builders.atlas(), tmp_path)
    with h5py.File(path, "r+") as file:
        values = file[f"X/{part}"][:]
        del file[f"X/{part}"]
        stored = file.create_dataset(f"X/{part}", values.shape, values.dtype, chunks=(100,))
        stored[:200] = values[:200]
    assert_says(answer(builders.read, path), "X of atlas.h5ad lacks")


def test_a_filter_that_is_not_known_is_refused_before_a_plugin_is_looked_for(tmp_path: Path) -> None:
    path = builders.write(builders.atlas(), tmp_path)
    with h5py.File(path, "r+") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(32099, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((50,))
        h5py.h5d.create(file["uns"].id, b"evil", h5py.h5t.STD_I32LE, space, plist)
    assert_says(answer(builders.read, path), "uns/evil", "32099", "is not run")


def test_absurd_sizes_in_hdf5_are_refused(tmp_path: Path) -> None:
    def changed(name: str, **options: Any) -> str:
        path = builders.write(builders.atlas(), tmp_path)
        with h5py.File(path, "r+") as file:
            attributes = dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, **options).attrs.update(attributes)
        return answer(builders.read, path)

    for name, kind in (("obs/_index", WORDS), ("var/_index", WORDS), ("X/indptr", "i8"), ("X/data", "f4")):
        message = changed(name, shape=(1 << 40,), dtype=kind, chunks=(1 << 20,))
        assert_says(message, "atlas.h5ad")
        assert len(message) < 500
    assert_says(changed("obs/_index", shape=(360,), dtype="S2000000"), "entries of 2,000,000")
    assert_says(changed("X/data", shape=(1 << 40,), dtype="f4", chunks=((1 << 29) + 1,)), "chunks of")


def test_categoricals_of_0_7_in_zarr_are_words(tmp_path: Path) -> None:
    adata = builders.atlas()
    adata.write_zarr(tmp_path / "atlas.zarr")
    group = zarr.open_group(tmp_path / "atlas.zarr", mode="r+", use_consolidated=False)["obs"]
    levels, codes = group["Donor ID/categories"][:], group["Donor ID/codes"][:]
    del group["Donor ID"]
    stored = group.create_array("__categories/Donor ID", shape=levels.shape, dtype="str")
    stored[:] = levels
    group.create_array("Donor ID", shape=codes.shape, dtype=codes.dtype)[:] = codes
    group["Donor ID"].attrs["categories"] = "__categories/Donor ID"
    zarr.consolidate_metadata(tmp_path / "atlas.zarr")
    assert columns(tmp_path / "atlas.zarr")["Donor ID"].tolist() == adata.obs["Donor ID"].tolist()
