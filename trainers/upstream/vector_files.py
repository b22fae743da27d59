"""Parquet files with a column of vectors.

Dims: N rows, E width of a vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq


def vector_column(vectors: npt.NDArray[np.float32]) -> pa.ListArray:
    """Matrix [N, E] as a list<float32> column."""
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))


def write_vectors(table: pa.Table, file: Path) -> None:
    """Write a table; a reader sees the file before or the new one, whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    # Hardly two elements of a vector are equal: looking for a dictionary of them would double the time of a write.
    repeated = [field.name for field in table.schema if not pa.types.is_list(field.type)]
    pq.write_table(table, partial, compression="zstd", use_dictionary=repeated)
    partial.replace(file)
