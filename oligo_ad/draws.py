"""Random draws computed from what they are for: a nucleus, an item of it, and a purpose.

No state is passed on, so a nucleus has the same draws in any batch, in any process, on any device, and
whatever other nuclei are in the cohort.
"""

from typing import Any

import numpy as np
import pandas as pd


def nucleus_keys(barcodes: pd.Series) -> np.ndarray:
    """A number for each barcode [nuclei] int64, the same in every cohort that has the nucleus."""
    return pd.util.hash_array(barcodes.to_numpy(object), categorize=False).view(np.int64)


def stream(seed: int, purpose: int) -> int:
    """The number that stands for one use of a seed; seeds are below 2^31, purposes below 2^20."""
    return (seed << 20) + purpose


def draw(key: Any, stream: int, item: Any) -> Any:
    """64 random bits, as int64, for an item of a nucleus; arrays of NumPy and tensors of PyTorch alike."""
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
