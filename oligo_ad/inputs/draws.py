"""Random draws that follow from what they are for: a cell, an item of it, a purpose.

No state is passed on, so a cell's draws are the same in any batch, in any process, on any device, and
whatever other cells are in the cohort.
"""

from typing import Any

import numpy as np
import pandas as pd
from numba.extending import register_jitable


def cell_keys(barcodes: pd.Series) -> np.ndarray:
    """A number for each barcode [cells] int64, the same wherever the cell turns up."""
    return pd.util.hash_array(barcodes.to_numpy(object), categorize=False).view(np.int64)


def stream(seed: int, purpose: int) -> int:
    """One use of a seed; `purpose` is below 2^20."""
    return (seed << 20) + purpose


@register_jitable
def draw(key: Any, stream: int, item: Any) -> Any:
    """64 random bits, as int64, for an item of a cell: of arrays, of tensors, or in compiled code."""
    return mix(mix(key + stream) ^ item)


@register_jitable
def mix(bits: Any) -> Any:
    """The finaliser of SplitMix64 (Steele 2014) in signed numbers, which every array library has."""
    bits = (bits ^ (bits >> 30)) * -4658895280553007687
    bits = (bits ^ (bits >> 27)) * -7723592293110705685
    return bits ^ (bits >> 31)
