"""Features of matched rows, read from just the row groups that hold one and put where the entity rows want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from threading import Lock

import numpy as np
import pyarrow as pa

from feature_repo.stores.offline.pages import PAGE_ROWS, read_pages, row_groups
from feature_repo.stores.offline.snapshots import References, SnapshotError, Snapshots
from feature_repo.stores.offline.take import Column, Indices, WidthError, column_of, whole
from feature_repo.stores.prefetch import prefetch

NO_MATCH = -1
"""Reference of an entity row that nothing matches."""


class Gather:
    """Reads features of one view for block after block of entity rows.

    Decoded row groups stay in memory for the next block while they fit in `cache_bytes`; one that the last block did
    not need makes room for one that this block needs.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        files: list[int],
        columns: Mapping[str, pa.Field],
        widths: Mapping[str, int],
        cache_bytes: int = 0,
    ) -> None:
        self._snapshots = snapshots
        self._columns = columns
        self._widths = [widths.get(name, 0) for name in columns]
        self._groups = row_groups(snapshots, files)
        num_pages = np.array([-(-group.num_rows // PAGE_ROWS) for group in self._groups], np.int64)
        self._group_of = np.repeat(np.arange(len(num_pages)), num_pages)
        self._first_page = np.cumsum(num_pages) - num_pages
        firsts = np.array([group.first for group in self._groups], np.int64)
        page_in_group = np.arange(len(self._group_of)) - self._first_page[self._group_of]
        self._first_rows = firsts[self._group_of] + page_in_group * PAGE_ROWS
        self._cache = _PageCache(cache_bytes)

    def plan(self, references: References) -> _Plan:
        """How the features of each referenced row are read; null where the reference is `NO_MATCH`."""
        matched = references != NO_MATCH
        positions = np.flatnonzero(matched).astype(np.int32)
        wanted = references[positions]
        page_of = np.searchsorted(self._first_rows, wanted, side="right") - 1
        rows = (wanted - self._first_rows[page_of]).astype(np.int32)
        num_rows = np.bincount(page_of, minlength=len(self._first_rows))
        order = np.argsort(page_of.astype(_narrowest(len(num_rows))), kind="stable")
        self._cache.next_block()
        return _Plan(
            gather=self,
            groups=np.unique(self._group_of[num_rows > 0]).tolist(),
            columns=[
                column_of(field.type, matched, width)
                for field, width in zip(self._columns.values(), self._widths, strict=True)
            ],
            bounds=np.concatenate([[0], np.cumsum(num_rows)]).tolist(),
            positions=positions[order],
            rows=rows[order],
        )

    @property
    def schema(self) -> pa.Schema:
        """Fields of the features."""
        return pa.schema(list(self._columns.values()))

    @contextmanager
    def naming(self, group: int, place: int) -> Iterator[None]:
        """Name view, file and column of a vector of another width."""
        try:
            yield
        except WidthError as error:
            path, name = self._snapshots.files[self._groups[group].file], list(self._columns)[place]
            raise SnapshotError(
                f"{self._snapshots.label} in {path}: {name} must be {error}; write that file again"
            ) from error

    def pages(self, group: int) -> Iterator[tuple[int, pa.Table]]:
        """Number and content of each page of a row group.

        Raises:
            SnapshotError: A file is damaged or lacks a column, or holds values that do not fit the declared type.
        """
        read = read_pages(self._snapshots, self._groups[group], self._columns)
        return enumerate(self._cache.pages(group, read), int(self._first_page[group]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Which row of which page goes where, in the order of the pages; row groups are read in any order."""

    gather: Gather
    groups: list[int]
    """Row groups with a referenced row."""
    columns: list[Column]
    bounds: list[int]
    """Where the rows of each page begin, and the last ones end."""
    positions: Indices
    rows: Indices

    def read(self, group: int, is_ahead: bool) -> None:
        """Put what a row group has.

        Args:
            is_ahead: Whether a thread of its own decodes the next page.
        """
        with prefetch(self.gather.pages(group), is_ahead=is_ahead) as pages:
            for number, page in pages:
                first, last = self.bounds[number : number + 2]
                if first < last:
                    for place, (column, values) in enumerate(zip(self.columns, page.columns, strict=True)):
                        with self.gather.naming(group, place):
                            column.put(self.positions[first:last], whole(values), self.rows[first:last])

    def finish(self) -> pa.Table:
        """The features."""
        return pa.table([column.finish() for column in self.columns], schema=self.gather.schema)


def gather_all(
    gathers: Sequence[Gather], references: Sequence[References], pool: ThreadPoolExecutor, threads: int
) -> list[pa.Table]:
    """Features of the rows that each view's references name; row groups of all views are read side by side.

    Args:
        threads: Of the pool.

    Raises:
        SnapshotError: A file is damaged or lacks a column, or holds values that do not fit the declared type.
    """
    plans = list(pool.map(Gather.plan, gathers, references))
    rounds = zip_longest(*([(plan, group) for group in plan.groups] for plan in plans))
    tasks = [task for tasks in rounds for task in tasks if task is not None]
    is_ahead = len(tasks) < threads
    _wait_all([pool.submit(plan.read, group, is_ahead) for plan, group in tasks])
    return list(pool.map(_Plan.finish, plans))


def _wait_all(futures: Sequence[Future[None]]) -> None:
    """Wait for all; when one fails the others that have begun are waited for, and the rest never begins."""
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


class _PageCache:
    """Decoded row groups, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._pages: dict[int, list[pa.Table]] = {}
        self._last_used: dict[int, int] = {}
        self._block = 0
        self._lock = Lock()

    def next_block(self) -> None:
        self._block += 1

    def pages(self, group: int, read: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Pages of a row group, each group by one thread at a time."""
        self._last_used[group] = self._block
        if group in self._pages:
            yield from self._pages[group]
            return
        kept: list[pa.Table] | None = [] if self._max_bytes else None
        for page in read:
            if kept is not None and self._has_taken(page.nbytes):
                kept.append(page)
            elif kept is not None:
                self._give_back(kept)
                kept = None
            yield page
        if kept is not None:
            self._pages[group] = kept

    def _has_taken(self, num_bytes: int) -> bool:
        """Take memory, if there is room or can be made."""
        with self._lock:
            stale = (group for group in tuple(self._pages) if self._last_used[group] < self._block - 1)
            while self._num_bytes + num_bytes > self._max_bytes:
                group = next(stale, None)
                if group is None:
                    return False
                self._num_bytes -= sum(page.nbytes for page in self._pages.pop(group))
            self._num_bytes += num_bytes
            return True

    def _give_back(self, pages: list[pa.Table]) -> None:
        with self._lock:
            self._num_bytes -= sum(page.nbytes for page in pages)


def _narrowest(count: int) -> type[np.unsignedinteger]:
    """Small integers are sorted by radix, which takes a fifth of the time."""
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint64
