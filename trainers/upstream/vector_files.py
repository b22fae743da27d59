"""Parquet files with a column of vectors.

Dims: N rows, E width of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contract import EMBEDDING_FIELD, ENTITIES, join_key
from trainers.upstream.aggregate import Keys, Vectors


def vector_column(vectors: npt.NDArray[np.float32]) -> pa.ListArray:
    """Matrix [N, E] as a list<float32> column."""
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))


def write_vectors(table: pa.Table, file: Path) -> None:
    """Write a table; a reader sees the file before or the new one, whole."""
    write_tables(iter([table]), file)


def write_tables(tables: Iterator[pa.Table], file: Path) -> None:
    """The same of a table that comes in parts, one at least, of which one at a time is held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    first = next(tables)
    # Hardly two elements of a vector are equal: looking for a dictionary of them would double the time of a write.
    repeated = [field.name for field in first.schema if not pa.types.is_list(field.type)]
    try:
        with pq.ParquetWriter(partial, first.schema, compression="zstd", use_dictionary=repeated) as writer:
            for table in chain([first], tables):
                writer.write_table(table)
    except BaseException:
        partial.unlink()
        raise
    partial.replace(file)


def read_vectors(file: Path, entity: str, dim: int) -> tuple[Keys, Vectors]:
    """Keys and vectors [N, E] of a file, in its order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds vectors of another width.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} must hold the day's {entity} embeddings (got no file); run `headwater train`")
    table = pq.read_table(file, columns=[join_key(entity), EMBEDDING_FIELD])
    widths = set(pc.unique(pc.list_value_length(table[EMBEDDING_FIELD])).to_pylist())
    if not widths <= {dim}:
        raise ValueError(
            f"{file} must hold vectors of width {dim} (got {sorted(widths, key=str)}); train again or raise the version"
        )
    vectors = pc.list_flatten(table[EMBEDDING_FIELD]).to_numpy().reshape(-1, dim)
    return np.asarray(table[join_key(entity)].to_numpy()), vectors


def read_frame(file_of: Callable[[str], Path], dim: int) -> dict[str, tuple[Keys, Vectors]]:
    """Keys and vectors of both entities.

    Args:
        file_of: File of an entity.
    """
    return {entity: read_vectors(file_of(entity), entity, dim) for entity in ENTITIES}


def sha256_of(file: Path) -> str:
    """Digest of a file, 64 hex digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def num_vectors(file: Path) -> int:
    """Number of vectors in a file."""
    rows: int = pq.ParquetFile(file).metadata.num_rows
    return rows
