"""Writes a prepared cohort to the files of a folder, and reads it back."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.sums import DonorSums
from oligo_ad.storage.expression import Expression
from oligo_ad.storage.matrix import open_matrix
from oligo_ad.storage.tables import read_parquet

FRAMES = ("cells", "genes", "donors", "kinds", "steps")
SUMS = "sums.npy"


def write_cohort(cohort: Cohort, folder: Path) -> dict[str, Any]:
    """Write all of a cohort but the values of its matrix, which are in the folder already.

    Returns:
        Facts of the cohort that `open_cohort` needs besides the files, fit for JSON.
    """
    cohort.matrix.save(folder)
    np.save(folder / SUMS, cohort.sums.values)
    for name in FRAMES:
        getattr(cohort, name).to_parquet(folder / f"{name}.parquet")
    return {
        "shape": cohort.matrix.shape,
        "expression": asdict(cohort.expression),
        "simulated": cohort.simulated,
        "about": cohort.about,
        "notes": cohort.notes,
        "varying": cohort.varying,
    }


def open_cohort(folder: Path, facts: dict[str, Any]) -> Cohort:
    """The cohort that was written to a folder, with its matrix mapped."""
    return Cohort(
        matrix=open_matrix(folder),
        sums=DonorSums(np.load(folder / SUMS)),
        expression=TypeAdapter(Expression).validate_python(facts["expression"]),
        simulated=facts["simulated"],
        about=facts["about"],
        notes=tuple(facts["notes"]),
        varying=facts["varying"],
        **{name: read_parquet(folder / f"{name}.parquet") for name in FRAMES},
    )
