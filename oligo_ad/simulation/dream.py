"""The layout of the SEA-AD DREAM A9 file: its obs columns, and its elements written as AnnData reads them."""

from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

from oligo_ad.simulation.truth import OTHER_TYPES

# Columns with one value in all simulated nuclei.
CONSTANT = {
    "Highest Lewy Body Disease": "Not Identified (olfactory bulb not assessed)",
    "Hispanic/Latino": "No",
    "Race (choice=American Indian/ Alaska Native)": "Unchecked",
    "Race (choice=Asian)": "Unchecked",
    "Race (choice=Black/ African American)": "Unchecked",
    "Race (choice=Native Hawaiian or Pacific Islander)": "Unchecked",
    "Race (choice=Other)": "Unchecked",
    "Race (choice=Unknown or unreported)": "Unchecked",
    "Race (choice=White)": "Checked",
    "percent GFAP positive area": 5.0,
    "percent aSyn positive area": 0.1,
    "percent pTDP43 positive area": 0.1,
}


def as_dream(obs: pd.DataFrame, donors: pd.DataFrame) -> pd.DataFrame:
    """The nuclei under the column names and levels of the DREAM file, plus the planted truth."""
    donor_of_nucleus = donors.iloc[obs["donor"]].reset_index(drop=True)
    columns = _of_donors(donor_of_nucleus) | _of_nuclei(obs, donor_of_nucleus["donor"])
    names = [f"{donor}-{i}" for i, donor in enumerate(donor_of_nucleus["donor"])]
    frame = pd.DataFrame(
        {name: np.asarray(columns[name]) for name in sorted(columns)}, index=pd.Index(names, name="index")
    )
    frame = frame.assign(**CONSTANT)[sorted([*columns, *CONSTANT])]
    frame["SIMULATED affected"] = obs["affected"].to_numpy()
    for state in (name for name in obs if name.startswith("state ")):
        frame[f"SIMULATED {state}"] = obs[state].to_numpy()
    if donors["extra"].any():
        frame["SIMULATED extra"] = donor_of_nucleus["extra"].to_numpy()
    text = [name for name in frame if frame[name].dtype == object]
    return frame.astype(dict.fromkeys(text, "category"))


def _of_donors(donor: pd.DataFrame) -> dict[str, Any]:
    """Columns that are the same for all nuclei of a donor, from its row repeated for each nucleus."""
    severity = donor["severity"].to_numpy()
    stage = np.digitize(severity, [0.2, 0.5, 0.9])
    return {
        # Of neither class, unless a run asks for these values.
        "ADNC": np.where(donor["extra"], "Extra " + donor["adnc"], donor["adnc"]),
        "APOE Genotype": donor["apoe"],
        "Age at Death": donor["age"],
        "Braak": np.array(["Braak II", "Braak III", "Braak IV", "Braak VI"])[stage],
        "CERAD": np.array(["Absent", "Sparse", "Moderate", "Frequent"])[stage],
        "Cognitive Status": np.where(severity > 0.6, "Dementia", "No dementia"),
        "Donor ID": donor["donor"],
        "LATE": np.where(severity > 0.9, "LATE Stage 2", "Not Identified"),
        "Method": np.where(donor["multiome"], "3' 10x Multiome", "3' 10x v3.1"),
        "PMI": donor["pmi"],
        "Sex": donor["sex"],
        "Thal": np.array(["Thal 0", "Thal 1", "Thal 3", "Thal 5"])[stage],
        "Years of education": donor["education"],
        "percent 6e10 positive area": 6 * severity,
        "percent AT8 positive area": 9 * severity**2,
        "percent NeuN positive area": 3 - severity,
    }


def _of_nuclei(obs: pd.DataFrame, donor: pd.Series) -> dict[str, Any]:
    """Columns that differ between the nuclei of a donor. `donor` [nuclei]: its name."""
    subclass = np.array(["Oligodendrocyte", *OTHER_TYPES])[obs["cell_type"]]
    neurons = np.isin(subclass, ["L2/3 IT", "Vip"])
    library = np.char.add(donor.to_numpy(str), np.char.add("_L", obs["library"].to_numpy(str)))
    return {
        "Class": np.where(neurons, "Neuronal: Glutamatergic", "Non-neuronal and Non-neural"),
        "Subclass": subclass,
        "Supertype": np.where(obs["cell_type"] == 0, "Oligo_2", np.char.add(subclass, "_1")),
        "exp_component_name": library,
        "library_prep": library,
    }


def write_frame(file: h5py.File, name: str, frame: pd.DataFrame) -> None:
    """Write a dataframe element, column by column, since AnnData refuses new names with a '/'."""
    group = file.create_group(name)
    index = frame.index.name
    write_elem(group, index, frame.index.to_numpy(object))
    for column in frame.columns:
        parent, _, leaf = column.rpartition("/")
        values = frame[column]
        encoded = values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()
        write_elem(group.require_group(parent) if parent else group, leaf, encoded)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": index})
    group.attrs["column-order"] = np.array(list(frame.columns), dtype=h5py.string_dtype())


class CsrWriter:
    """Appends CSR blocks to an AnnData sparse matrix on disk."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, int]) -> None:
        self.group = file.create_group(name)
        self.group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        self.group.attrs["shape"] = np.array(shape)
        options = {"chunks": (1 << 18,), "maxshape": (None,), "compression": "gzip"}
        self.data = self.group.create_dataset("data", (0,), np.float32, compression_opts=1, **options)
        self.indices = self.group.create_dataset("indices", (0,), np.int32, compression_opts=1, **options)
        self.indptr = [np.zeros(1, np.int64)]

    def append(self, block: sp.csr_matrix) -> None:
        end = self.data.shape[0]
        for dataset, values in ((self.data, block.data), (self.indices, block.indices)):
            dataset.resize(end + len(values), axis=0)
            dataset[end:] = values
        self.indptr.append(block.indptr[1:].astype(np.int64) + end)

    def close(self) -> None:
        self.group.create_dataset("indptr", data=np.concatenate(self.indptr))
