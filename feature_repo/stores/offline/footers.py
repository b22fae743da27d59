"""Footers of snapshot files: schema, row groups and the time range of each file, read once per version of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.stores.offline.snapshots import SnapshotError, Snapshots

_MICROSECONDS = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
"""Factor and divisor that make microseconds of a unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Footer:
    """What a file says about itself."""

    schema: pa.Schema
    metadata: pq.FileMetaData

    def num_rows(self, group: int) -> int:
        """Rows of a row group."""
        return int(self.metadata.row_group(group).num_rows)

    def num_nulls(self, column: str) -> int:
        """Rows without a value in a column, as far as the file counts them."""
        groups = range(self.metadata.num_row_groups)
        chunks = (_chunk(self, group, column) for group in groups)
        counted = [chunk.statistics for chunk in chunks if chunk is not None and chunk.is_stats_set]
        return sum(int(statistics.null_count) for statistics in counted if statistics.has_null_count)

    def row_bytes(self, columns: Iterable[str]) -> float:
        """Mean width of a row in memory, in bytes."""
        wanted, total = set(columns), 0
        for group in range(self.metadata.num_row_groups):
            chunks = self.metadata.row_group(group)
            for place in range(chunks.num_columns):
                chunk = chunks.column(place)
                if chunk.path_in_schema.split(".")[0] in wanted:
                    total += _decoded_bytes(chunk)
        return float(total / max(self.metadata.num_rows, 1))


def read_footer(path: Path, label: str) -> Footer:
    """Footer of a file, from memory when the file is as it was.

    Raises:
        SnapshotError: The file is damaged.
    """
    with naming(path, label):
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@contextmanager
def naming(path: Path, label: str) -> Iterator[None]:
    """Name the file in what pyarrow says about it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise SnapshotError(
            f"{label}: {path} must be a whole parquet file (got: {error}); restore it, or delete it and write it again"
        ) from error


def in_window(snapshots: Snapshots, oldest: int | None, newest: int | None) -> list[int]:
    """Indices of the files that may hold a row between two Unix times in microseconds."""
    kept = []
    for index, path in enumerate(snapshots.files):
        span = _span(read_footer(path, snapshots.label), snapshots.timestamp_field)
        is_before = span is not None and oldest is not None and span[1] < oldest
        is_after = span is not None and newest is not None and span[0] > newest
        if not (is_before or is_after):
            kept.append(index)
    return kept


def newest_time(path: Path, label: str, column: str) -> int | None:
    """Last time of a file in Unix microseconds; none when its statistics do not say.

    Raises:
        SnapshotError: The file is damaged.
    """
    span = _span(read_footer(path, label), column)
    return None if span is None else span[1]


@lru_cache(maxsize=4096)
def _read(path: Path, size: int, modified_ns: int, inode: int) -> Footer:  # noqa: ARG001
    with pq.ParquetFile(path) as file:
        return Footer(schema=file.schema_arrow, metadata=file.metadata)


def _span(footer: Footer, column: str) -> tuple[int, int] | None:
    """First and last time of a file, Unix microseconds rounded outwards; none when its statistics do not say."""
    place = footer.schema.get_field_index(column)
    if place < 0 or not pa.types.is_timestamp(footer.schema.field(place).type):
        return None
    factor, divisor = _MICROSECONDS[_stored_unit(footer, column)]
    spans = []
    for group in range(footer.metadata.num_row_groups):
        chunk = _chunk(footer, group, column)
        if chunk is None or chunk.physical_type != "INT64" or not chunk.is_stats_set:
            return None
        statistics = chunk.statistics
        if not statistics.has_min_max:
            return None
        spans.append((statistics.min_raw * factor // divisor, -(-statistics.max_raw * factor // divisor)))
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None


def _stored_unit(footer: Footer, column: str) -> str:
    unit = str(footer.schema.field(column).type.unit)
    return "ms" if unit == "s" else unit  # parquet has no seconds


def _chunk(footer: Footer, group: int, column: str) -> pq.ColumnChunkMetaData | None:
    chunks = footer.metadata.row_group(group)
    named = (chunks.column(place) for place in range(chunks.num_columns))
    return next((chunk for chunk in named if chunk.path_in_schema == column), None)


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}


def _decoded_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """Dictionaries make bytes on disk a poor guess for numbers; for text they are the best that there is."""
    width = _WIDTHS.get(chunk.physical_type)
    return int(chunk.total_uncompressed_size) if width is None else width * int(chunk.num_values)
