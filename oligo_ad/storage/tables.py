"""Reads small tables from disk."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq


def read_parquet(file: Path) -> pd.DataFrame:
    """A parquet file, read without Arrow's threads: they may abort a process that ends while they wait
    (apache/arrow#34314)."""
    table = pq.read_table(str(file), use_threads=False, pre_buffer=False)
    return table.to_pandas(use_threads=False)
