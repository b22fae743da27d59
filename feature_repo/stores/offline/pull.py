"""Rows of one source in the order of its files: each key's newest, or all of an interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pyarrow as pa

from feature_repo.stores.offline.arrow_types import plain_type
from feature_repo.stores.offline.asof_join import Engine, all_between, latest
from feature_repo.stores.offline.footers import read_footer
from feature_repo.stores.offline.pages import rechunk, select_rows
from feature_repo.stores.offline.snapshots import References, SnapshotError, Snapshots

_MOMENT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Rows with event_timestamp in [start, end]; an open end when a bound is none."""

    engine: Engine
    snapshots: Snapshots
    names: Sequence[str]
    """Columns besides the timestamps."""
    start: datetime | None
    end: datetime | None
    keys: Sequence[str] | None = None
    """Keys of which only the newest row is wanted; every row when none."""

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns as the newest file has them, the timestamps in microseconds."""
        return pa.schema(list(self._columns.values()))

    def block_rows(self, max_bytes: int) -> int:
        """Rows that take at most about `max_bytes`."""
        footer = read_footer(self.snapshots.files[-1], self.snapshots.label)
        return max(1024, min(1 << 20, int(max_bytes / (8.0 + footer.row_bytes(self._columns)))))

    def blocks(self, num_rows: int, first_row: int = 0) -> Iterator[pa.Table]:
        """The rows from `first_row` on in tables of `num_rows`, but for the last.

        Raises:
            SnapshotError: A file is damaged or lacks a column, or holds values that do not fit the newest file's type.
            EngineMemoryError: The keys and times do not fit in `memory_limit`.
        """
        chosen = self._references()[first_row:]
        yield from rechunk(select_rows(self.snapshots, chosen, self._columns), num_rows)

    def _references(self) -> References:
        with self.engine.connect() as connection:
            if self.keys is None or self.start is None or self.end is None:
                return all_between(connection, self.snapshots, self.start, self.end)
            return latest(connection, self.snapshots, list(self.keys), self.start, self.end)

    @cached_property
    def _columns(self) -> dict[str, pa.Field]:
        index = len(self.snapshots.files) - 1
        path = self.snapshots.files[index]
        schema = read_footer(path, self.snapshots.label).schema
        partition = self.snapshots.partition(index)
        absent = [name for name in self.names if name not in schema.names and name not in partition]
        if absent:
            raise SnapshotError(
                f"{self.snapshots.label}: {path} must hold the columns {list(self.names)} (lacks {absent}); "
                f"rebuild that snapshot"
            )
        columns = {
            name: pa.field(name, plain_type(schema.field(name).type) if name in schema.names else pa.string())
            for name in self.names
        }
        times = [name for name in (self.snapshots.timestamp_field, self.snapshots.created_field) if name]
        return columns | {name: pa.field(name, _MOMENT) for name in times}
