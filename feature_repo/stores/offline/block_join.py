"""Entity rows joined to several views, block by block: match keys and times, then gather what matched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from feature_repo.stores.offline.asof_join import AsofQuery, Engine, Matcher
from feature_repo.stores.offline.entity_rows import EntityRows
from feature_repo.stores.offline.footers import in_window, read_footer
from feature_repo.stores.offline.gather import Gather, gather_all
from feature_repo.stores.offline.snapshots import References

MAX_BLOCK_ROWS = 1 << 20
_MIN_BLOCK_ROWS = 1 << 10
_MAX_THREADS = 8
"""Each holds a page or two of decoded features."""
_SELECTIVE = 4
"""Candidates per entity row from which on it pays to look only for the keys of the entity rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewJoin:
    """One feature view to join, and the features of it that are wanted."""

    query: AsofQuery
    columns: dict[str, pa.Field]
    """Column in the files to the field of the result."""
    widths: dict[str, int]
    """Column in the files to the declared width, of vectors that have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """Entity rows and the views that are joined to them."""

    engine: Engine
    rows: EntityRows
    views: Sequence[ViewJoin]
    cache_bytes: int
    """Memory for features that one block leaves for the next."""

    def __post_init__(self) -> None:
        seen = set(self.rows.schema.names)
        for view in self.views:
            for field in view.columns.values():
                if field.name in seen:
                    raise ValueError(
                        f"columns of the result must differ (got {field.name} of {view.query.snapshots.label} again); "
                        f"use full_feature_names=True, or rename that column of the entity rows"
                    )
                seen.add(field.name)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the entity rows, then the features, view by view."""
        fields = [field for view in self.views for field in view.columns.values()]
        return pa.schema([*self.rows.schema, *fields])

    def block_rows(self, max_bytes: int) -> int:
        """Rows of which the features take at most about `max_bytes`."""
        width = 8.0
        for view in self.views:
            snapshots = view.query.snapshots
            ends = (snapshots.files[0], snapshots.files[-1])
            width += max(read_footer(path, snapshots.label).row_bytes(view.columns) for path in ends)
        return max(_MIN_BLOCK_ROWS, min(MAX_BLOCK_ROWS, int(max_bytes / width)))

    def blocks(self, num_rows: int, first_row: int = 0) -> Iterator[pa.Table]:
        """The result from entity row `first_row` on in tables of `num_rows`, but for the last; at least one table.

        Raises:
            ValueError: Keys are of another type than in the files.
            SnapshotError: A file is damaged or lacks a column, or holds values that do not fit the declared type.
            EngineMemoryError: The keys and times of the views do not fit in `memory_limit`.
        """
        is_one_block = self.rows.num_rows - first_row <= num_rows
        with ExitStack() as threads, ExitStack() as stack:
            # One pool for all blocks: memory that a thread has used is not always given back when it ends.
            # Nobody waits for them at the end: a stream that is given up is collected anywhere, even
            # where Python holds its lock of all threads, which one that ends needs.
            pool = ThreadPoolExecutor(self._threads, thread_name_prefix="join")
            threads.callback(pool.shutdown, wait=False, cancel_futures=True)
            connection = stack.enter_context(self.engine.connect())
            parts: list[tuple[Matcher, Gather]] = []
            for block in self.rows.blocks(num_rows, first_row):
                if not parts:
                    parts = self._parts(connection, block if is_one_block else None)
                matches = self._matches(parts, block, pool)
                gathers = [gather for _, gather in parts]
                if is_one_block:
                    # Nothing more to match: memory of keys and times is given back before features are read.
                    parts.clear()
                    stack.close()
                features = gather_all(gathers, matches, pool, self._threads)
                del matches
                columns = [*block.columns, *(column for table in features for column in table.columns)]
                yield pa.table(columns, schema=self.schema)

    @property
    def _threads(self) -> int:
        return min(self.engine.threads or pa.cpu_count(), _MAX_THREADS)

    def _parts(
        self, connection: duckdb.DuckDBPyConnection, only_keys_of: pa.Table | None
    ) -> list[tuple[Matcher, Gather]]:
        return [self._part(connection, number, only_keys_of) for number in range(len(self.views))]

    def _matches(
        self, parts: Sequence[tuple[Matcher, Gather]], block: pa.Table, pool: ThreadPoolExecutor
    ) -> list[References]:
        times = self.rows.times(block)
        # DuckDB itself uses all threads, and its limit of memory is for one join at a time.
        each = pool.map if all(matcher.has_grid for matcher, _ in parts) else map
        return list(each(lambda part: part[0].match(block, times), parts))

    def _part(
        self, connection: duckdb.DuckDBPyConnection, number: int, only_keys_of: pa.Table | None
    ) -> tuple[Matcher, Gather]:
        view = self.views[number]
        query, snapshots, window = view.query, view.query.snapshots, self.rows.window()
        if query.ttl:
            oldest: int | None = window[0] - int(query.ttl.total_seconds() * 1_000_000) - 1
        else:
            oldest = None
        files = in_window(snapshots, oldest, window[1])
        num_candidates = sum(read_footer(snapshots.files[i], snapshots.label).metadata.num_rows for i in files)
        is_selective = only_keys_of is not None and _SELECTIVE * only_keys_of.num_rows < num_candidates
        wanted = only_keys_of if is_selective else None
        matcher = Matcher(connection, query, f"view_{number}", window, num_candidates, wanted)
        cache_bytes = 0 if only_keys_of is not None else self.cache_bytes
        return matcher, Gather(snapshots, files, view.columns, view.widths, cache_bytes)
