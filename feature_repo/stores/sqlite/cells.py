"""Reading and writing cells of one of Feast's SQLite tables: a row per entity key and feature.

Bytes are passed as `bytearray`: for `bytes` Python's sqlite3 looks for an adapter every time, which takes longer than
all else that it does with a parameter.

Dims: N rows, F features.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, count, islice
from typing import Any

import numpy as np

from feature_repo.stores.packed.cells import NO_CELL, CellRequest, Cells, Integers, JoinedColumn
from feature_repo.stores.packed.rows import RowChunk
from feature_repo.stores.packed.times import NO_TIME
from feature_repo.stores.sqlite.times import stock_seconds, stored_micros

KEYS_PER_QUERY = 10_000
"""Keys of one query; SQLite takes 32,766 parameters."""
ROWS_PER_STATEMENT = 16
"""Rows of one insert; a statement per cell costs twice as much."""
_MAX_PARAMETERS = 30_000
_CACHE_KIB = 65_536
_FEW_CELLS = 64
"""Up to so many cells come one by one: joining them and cutting them apart would cost more."""
_SEPARATOR = "\x1f"
"""Between names of features in an answer."""
_COLUMNS = ("entity_key", "feature_name", "value", "value_text", "event_ts", "created_ts", "event_us")


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def add_micros_column(connection: sqlite3.Connection, table: str) -> None:
    """Add the column `event_us` to one of Feast's tables, unless it is there."""
    if not _has_micros(connection, table):
        connection.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN event_us INTEGER")


def _has_micros(connection: sqlite3.Connection, table: str) -> bool:
    rows = connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = 'event_us'", (table,))
    return rows.fetchone() is not None


class TableWriter:
    """Writes chunks of rows inside a transaction that holds the write lock.

    The guard compares whole rows, not cells: when a view has gained a feature, an older row must not bring its value.
    """

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection, self._table = connection, table
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        add_micros_column(connection, table)
        # Feast's index repeats the first column of the primary key's; keeping it in step takes a third of a write.
        connection.execute(f"DROP INDEX IF EXISTS {quoted(table + '_ek')}")
        (last_key,) = connection.execute(f"SELECT MAX(entity_key) FROM {quoted(table)}").fetchone()
        self._last_key: bytes = last_key or b""

    def newer_rows(self, chunk: RowChunk) -> RowChunk:
        """Rows of a chunk that are not older than what the table holds; the chunk is by ascending entity key."""
        known = bisect_right(chunk.keys, self._last_key)
        held = self._held_micros(chunk.keys[:known])
        self._last_key = max(self._last_key, *chunk.keys[-1:])
        if not held:
            return chunk
        moments = np.array([held.get(key, NO_TIME) for key in chunk.keys], np.int64)
        return chunk.take(np.flatnonzero(moments <= chunk.event_micros))

    def _held_micros(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        held: dict[bytes, int] = {}
        columns = "entity_key, MAX(CAST(event_ts AS INTEGER)), event_us"
        for some in _parts(keys, KEYS_PER_QUERY):
            query = f"SELECT {columns} FROM {quoted(self._table)} WHERE entity_key IN ({_marks(len(some))}) GROUP BY 1"
            for key, event_ts, event_us in self._connection.execute(query, list(map(bytearray, some))):
                held[key] = stored_micros(event_ts, event_us)
        return held

    def insert(self, chunk: RowChunk) -> None:
        """Write all rows of a chunk."""
        if not chunk.names:
            return
        texts = chunk.texts()
        with_text = tuple(any(text is not None for text in column) for column in texts)
        rows = _row_values(chunk, [column for column, held in zip(texts, with_text, strict=True) if held])
        most = max(1, min(ROWS_PER_STATEMENT, _MAX_PARAMETERS // _row_parameters(with_text)))
        while some := list(islice(rows, most)):
            statement = _insert_statement(self._table, with_text, len(some))
            self._connection.execute(statement, (*chunk.names, *chain.from_iterable(some)))


def _row_parameters(with_text: tuple[bool, ...]) -> int:
    """Key, three times, a value a feature, and texts."""
    return 4 + len(with_text) + sum(with_text)


@lru_cache(maxsize=64)
def _insert_statement(table: str, with_text: tuple[bool, ...], num_rows: int) -> str:
    """An insert whose parameters are the features' names, then the values of each row as `_row_values` has them.

    What the cells of a row share is passed once, and texts only of features that have some.
    """
    num_names = len(with_text)
    cells = []
    for row in range(num_rows):
        parameters = count(num_names + row * _row_parameters(with_text) + 1)
        key, seconds, created, micros = (f"?{next(parameters)}" for _ in range(4))
        values = [f"?{next(parameters)}" for _ in with_text]
        texts = [f"?{next(parameters)}" if held else "NULL" for held in with_text]
        for name, (value, text) in enumerate(zip(values, texts, strict=True), 1):
            cells.append(f"({key}, ?{name}, {value}, {text}, {seconds}, {created}, {micros})")
    changes = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[2:])
    return (
        f"INSERT INTO {quoted(table)} ({', '.join(_COLUMNS)}) VALUES {', '.join(cells)} "
        f"ON CONFLICT(entity_key, feature_name) DO UPDATE SET {changes}"
    )


def _row_values(chunk: RowChunk, texts: Sequence[list[str | None]]) -> Iterator[tuple[Any, ...]]:
    """Of each row its key, its times, values and texts."""
    micros = chunk.event_micros.tolist()
    seconds = list(map(stock_seconds, micros))
    created = [None if moment == NO_TIME else stock_seconds(moment) for moment in chunk.created_micros.tolist()]
    values = [map(bytearray, column) for column in chunk.values]
    return zip(map(bytearray, chunk.keys), seconds, created, micros, *values, *texts, strict=True)


def read_table(connection: sqlite3.Connection, table: str, request: CellRequest) -> Cells:
    """What a table holds of the features and keys of a request."""
    try:
        return _read_cells(connection, table, request, "event_us")
    except sqlite3.OperationalError as error:
        if "no such column: event_us" not in str(error):
            raise
        # A table that only Feast's own client has written.
        return _read_cells(connection, table, request, "NULL")


def _read_cells(connection: sqlite3.Connection, table: str, request: CellRequest, moment: str) -> Cells:
    # The whole row is one stretch of the table; its features one by one are a search each.
    wanted = [] if len(request.names) == len(request.view.features) else list(request.names)
    if len(request.keys) * len(request.names) <= _FEW_CELLS:
        query = _query(_EACH_CELL, table, moment, len(request.keys), len(wanted))
        return _few_cells(request, connection.execute(query, [*map(bytearray, request.keys), *wanted]).fetchall())
    places = {key: place for place, key in enumerate(dict.fromkeys(request.keys))}
    found = _Found(request, len(places))
    for some in _parts(list(places), KEYS_PER_QUERY):
        query = _query(_EACH_KEY, table, moment, len(some), len(wanted))
        rows = connection.execute(query, [*map(bytearray, some), *wanted]).fetchall()
        for names, alike in _by_names(rows).items():
            keys, _, values, sizes, seconds, event_us = zip(*alike, strict=True)
            at = np.array([places[key] for key in keys])
            found.add(names.split(_SEPARATOR), at, values, sizes)
            found.micros[at] = list(map(stored_micros, seconds, event_us))
    return found.cells(np.array([places[key] for key in request.keys], np.int64))


def _few_cells(request: CellRequest, rows: Sequence[Any]) -> Cells:
    """Answer of a request for so few cells that each can be an object of its own."""
    held: dict[bytes, dict[str, bytes]] = {}
    moments: dict[bytes, int] = {}
    for key, name, value, seconds, event_us in rows:
        held.setdefault(key, {})[name] = value
        moments[key] = max(moments.get(key, NO_TIME), stored_micros(seconds, event_us))
    found = [held.get(key, {}) for key in request.keys]
    return Cells(
        values=[[cells.get(name) for cells in found] for name in request.names],
        event_micros=np.array([moments.get(key, NO_TIME) for key in request.keys], np.int64),
    )


def _by_names(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows by the features that they have, nearly always the same ones."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row[1], []).append(row)
    return found


class _Found:
    """Cells as they are found, none of them an object of its own."""

    def __init__(self, request: CellRequest, num_keys: int) -> None:
        self._columns = {name: column for column, name in enumerate(request.names)}
        shape = (len(request.names), num_keys)
        self._starts, self._lengths = np.zeros(shape, np.int64), np.full(shape, NO_CELL, np.int64)
        self._joined: list[bytes] = []
        self._size = 0
        self.micros = np.full(num_keys, NO_TIME, np.int64)

    def add(self, names: Sequence[str], rows: Integers, values: Sequence[bytes], sizes: Sequence[str]) -> None:
        """Rows that have the same features, each with its cells one after the other and their sizes."""
        lengths = np.fromstring(",".join(sizes), np.int64, sep=",").reshape(len(rows), -1)
        taken = np.maximum(lengths, 0)
        starts = self._size + (np.cumsum(taken) - taken.ravel()).reshape(lengths.shape)
        held = [place for place, name in enumerate(names) if name in self._columns]
        if held:
            cells = np.ix_(np.array([self._columns[names[place]] for place in held]), rows)
            self._starts[cells], self._lengths[cells] = starts[:, held].T, lengths[:, held].T
        self._joined += values
        self._size += int(taken.sum())

    def cells(self, rows: Integers) -> Cells:
        """What was found for each of some rows."""
        joined = b"".join(self._joined)
        starts, lengths = self._starts[:, rows], self._lengths[:, rows]
        values = [JoinedColumn(joined, *column) for column in zip(starts, lengths, strict=True)]
        return Cells(values=values, event_micros=self.micros[rows])


_EACH_CELL = "SELECT entity_key, feature_name, value, CAST(event_ts AS INTEGER), {moment} FROM {rows}"
_EACH_KEY = (
    f"SELECT entity_key, group_concat(feature_name, char({ord(_SEPARATOR)})), "
    f"CAST(group_concat(value, '') AS BLOB), group_concat(ifnull(length(value), {NO_CELL})), "
    # A column by itself is of the row with the maximum.
    "MAX(CAST(event_ts AS INTEGER)), {moment} FROM {rows} GROUP BY entity_key"
)
"""Of each key the names of its features, their values one after the other, their sizes, and the newest moment.

A row per key: what SQLite hands out cell by cell costs more than reading it.
"""


@lru_cache(maxsize=256)
def _query(form: str, table: str, moment: str, num_keys: int, num_names: int) -> str:
    rows = f"{quoted(table)} WHERE entity_key IN ({_marks(num_keys)})"
    if num_names:
        rows += f" AND feature_name IN ({_marks(num_names)})"
    return form.replace("{moment}", moment).replace("{rows}", rows)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _marks(count: int) -> str:
    return ", ".join(["?"] * count)
