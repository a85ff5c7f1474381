"""A prepared cohort as files: whatever it holds is read back."""

import json
from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from oligo_ad.data.cohort import build
from oligo_ad.data.cohort_files import open_cohort, write_cohort
from oligo_ad.storage.atlas import open_atlas
from tests.builders import atlas, configuration, write


def test_a_cohort_is_read_back_field_by_field(tmp_path: Path) -> None:
    with open_atlas(write(atlas(), tmp_path)) as opened:
        built = build(opened, configuration().data, tmp_path)
    # Nothing is what it would be if it were forgotten.
    odd = replace(
        built,
        expression=replace(built.expression, content="log"),
        simulated=True,
        about={"file": "ä.h5ad"},
        notes=("one", "two"),
        varying={"Sex": 3},
    )
    again = open_cohort(tmp_path, json.loads(json.dumps(write_cohort(odd, tmp_path))))
    for name in (field.name for field in fields(odd)):
        wanted, found = getattr(odd, name), getattr(again, name)
        if isinstance(wanted, pd.DataFrame):
            pd.testing.assert_frame_equal(found, wanted)
        elif name in ("matrix", "sums"):
            for one, other in zip(astuple(found), astuple(wanted), strict=True):
                np.testing.assert_array_equal(one, other, strict=True)
        else:
            assert found == wanted, name
