"""Pages of snapshot files: up to 16 k rows, decoded one after the other, so that a row group is never held whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.stores.offline.arrow_types import conform
from feature_repo.stores.offline.footers import naming, read_footer
from feature_repo.stores.offline.snapshots import REFERENCE_SHIFT, References, SnapshotError, Snapshots
from feature_repo.stores.offline.take import take, whole

PAGE_ROWS = 1 << 14
_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroup:
    """A row group of one of the files of a source."""

    file: int
    group: int
    first: int
    """Reference of its first row."""
    num_rows: int


def row_groups(snapshots: Snapshots, files: Sequence[int]) -> list[RowGroup]:
    """Row groups of some of the files, in the order of their references."""
    found = []
    for file in files:
        footer = read_footer(snapshots.files[file], snapshots.label)
        first = file << REFERENCE_SHIFT
        for group in range(footer.metadata.num_row_groups):
            num_rows = footer.num_rows(group)
            found.append(RowGroup(file=file, group=group, first=first, num_rows=num_rows))
            first += num_rows
    return found


def read_pages(snapshots: Snapshots, group: RowGroup, columns: Mapping[str, pa.Field]) -> Iterator[pa.Table]:
    """Columns of a row group as the fields they become, `PAGE_ROWS` rows at a time.

    Raises:
        SnapshotError: The file is damaged or lacks a column, or holds values that do not fit a field, or it was written
            again since the row groups were listed.
    """
    path = snapshots.files[group.file]
    partition = snapshots.partition(group.file)
    footer = read_footer(path, snapshots.label)
    is_there = group.group < footer.metadata.num_row_groups
    if not is_there or footer.num_rows(group.group) != group.num_rows:
        got = f"{footer.num_rows(group.group)} rows" if is_there else "none"
        raise SnapshotError(
            f"{snapshots.label}: {path} must not change while it is read (row group {group.group} had "
            f"{group.num_rows} rows, got {got}); run again"
        )
    held = footer.schema.names
    absent = sorted(name for name in columns if name not in held and name not in partition)
    if absent:
        raise SnapshotError(
            f"{snapshots.label}: {path} must hold the declared columns (lacks {absent}); rebuild that snapshot"
        )
    where = f"{snapshots.label} in {path}"
    for page in _pages(snapshots, group, [name for name in columns if name in held]):
        for name in columns:
            if name not in held:
                page = page.append_column(name, pa.repeat(pa.scalar(partition[name], pa.string()), page.num_rows))
        yield conform(page, columns, where)


def _pages(snapshots: Snapshots, group: RowGroup, names: list[str]) -> Iterator[pa.Table]:
    path = snapshots.files[group.file]
    if not names:
        sizes = [min(PAGE_ROWS, group.num_rows - start) for start in range(0, group.num_rows, PAGE_ROWS)]
        yield from (pa.table({"": pa.nulls(size)}) for size in sizes)
        return
    with naming(path, snapshots.label), pq.ParquetFile(path, buffer_size=_READ_BUFFER_BYTES) as file:
        batches = file.iter_batches(PAGE_ROWS, row_groups=[group.group], columns=names)
        yield from rechunk((pa.Table.from_batches([batch]) for batch in batches), PAGE_ROWS)


def rechunk(tables: Iterator[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `num_rows` rows each, but for the last."""
    waiting: deque[pa.Table] = deque()
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        while held >= num_rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, num_rows)
            held -= num_rows
            waiting = deque([whole.slice(num_rows)] if held else [])
    if held:
        yield pa.concat_tables(waiting)


def select_rows(snapshots: Snapshots, references: References, columns: Mapping[str, pa.Field]) -> Iterator[pa.Table]:
    """Referenced rows in the order of their references, a page at a time; no page is read twice.

    Args:
        references: Sorted, each once.
    """
    files = np.unique(references >> REFERENCE_SHIFT).tolist()
    for group in row_groups(snapshots, files):
        first, last = np.searchsorted(references, [group.first, group.first + group.num_rows])
        if first < last:
            yield from _selected(snapshots, group, references[first:last] - group.first, columns)


def _selected(
    snapshots: Snapshots, group: RowGroup, rows: References, columns: Mapping[str, pa.Field]
) -> Iterator[pa.Table]:
    start = 0
    for page in read_pages(snapshots, group, columns):
        first, last = np.searchsorted(rows, [start, start + page.num_rows])
        if last - first == page.num_rows:
            yield page
        elif first < last:
            chosen = rows[first:last] - start
            arrays = [take(whole(column), chosen) for column in page.columns]
            yield pa.table(arrays, schema=page.schema)
        start += page.num_rows
