"""Random draws that follow from what they are for: a cell, an item of it, a purpose.

No state is passed on, so a cell's draws are the same in any batch, in any process, on any device, and
whatever other cells are in the cohort.
"""

from typing import Any

import numpy as np
import pandas as pd


def cell_keys(barcodes: pd.Series) -> np.ndarray:
    """A number for each barcode [cells] int64, the same wherever the cell turns up."""
    return pd.util.hash_array(barcodes.to_numpy(object), categorize=False).view(np.int64)


def stream(seed: int, purpose: int) -> int:
    """One use of a seed below 2^31; `purpose` is below 2^20."""
    return (seed << 20) + purpose


def draw(key: Any, stream: int, item: Any) -> Any:
    """64 random bits, as int64, for an item of a cell; arrays of NumPy and tensors of PyTorch alike."""
    return mix(mix(key + stream) ^ item)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Numbers from 0 to below 1, of the upper 53 of 64 bits."""
    return (bits.view(np.uint64) >> np.uint64(11)) * 2.0**-53


def mix(bits: Any) -> Any:
    """The finaliser of SplitMix64 (Steele 2014) in signed numbers, which every array library has.

    Their shifts repeat the sign, where unsigned ones bring in zeros: masks take it away.
    """
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * -4658895280553007687
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * -7723592293110705685
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))
