"""Reading and writing cells of one of Feast's SQLite tables: a row per entity key and feature.

Dims: N rows, F features.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import numpy as np

from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.packed.rows import RowChunk
from feature_repo.stores.packed.times import NO_TIME
from feature_repo.stores.sqlite.times import stock_seconds, stored_micros

KEYS_PER_QUERY = 10_000
"""Keys of one query; SQLite takes 32,766 parameters."""
ROWS_PER_STATEMENT = 8
"""Rows of one insert; a statement per cell costs twice as much."""
_MAX_PARAMETERS = 30_000
_CACHE_KIB = 65_536
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

    def newer_rows(self, chunk: RowChunk) -> RowChunk:
        """Rows of a chunk that are not older than what the table holds, by entity key."""
        held = self._held_micros(chunk.keys)
        order = sorted(
            (key, place)
            for place, (key, micros) in enumerate(zip(chunk.keys, chunk.event_micros.tolist(), strict=True))
            if held.get(key, NO_TIME) <= micros
        )
        places = [place for _, place in order]
        rows = np.array(places, np.int64)
        return replace(
            chunk,
            keys=[key for key, _ in order],
            values=[[values[place] for place in places] for values in chunk.values],
            event_micros=chunk.event_micros[rows],
            created_micros=chunk.created_micros[rows],
            texts=lambda: [[texts[place] for place in places] for texts in chunk.texts()],
        )

    def _held_micros(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        held: dict[bytes, int] = {}
        columns = "entity_key, MAX(CAST(event_ts AS INTEGER)), event_us"
        for some in _parts(keys, KEYS_PER_QUERY):
            query = f"SELECT {columns} FROM {quoted(self._table)} WHERE entity_key IN ({_marks(len(some))}) GROUP BY 1"
            for key, event_ts, event_us in self._connection.execute(query, some):
                held[key] = stored_micros(event_ts, event_us)
        return held

    def insert(self, chunk: RowChunk) -> None:
        """Write all rows of a chunk."""
        if not chunk.names:
            return
        rows = _row_values(chunk)
        most = max(1, min(ROWS_PER_STATEMENT, _MAX_PARAMETERS // (2 * len(chunk.names) + 4)))
        while some := list(islice(rows, most)):
            statement = _insert_statement(self._table, len(chunk.names), len(some))
            self._connection.execute(statement, (*chunk.names, *chain.from_iterable(some)))


@lru_cache(maxsize=64)
def _insert_statement(table: str, num_names: int, num_rows: int) -> str:
    """An insert whose parameters are the features' names, then the values of each row as `_row_values` has them.

    What the cells of a row share is passed once.
    """
    cells = []
    for row in range(num_rows):
        first = num_names + row * (2 * num_names + 4) + 1
        key, seconds, created, micros = (f"?{first + place}" for place in range(4))
        for place in range(num_names):
            value, text = first + 4 + place, first + 4 + num_names + place
            cells.append(f"({key}, ?{place + 1}, ?{value}, ?{text}, {seconds}, {created}, {micros})")
    changes = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[2:])
    return (
        f"INSERT INTO {quoted(table)} ({', '.join(_COLUMNS)}) VALUES {', '.join(cells)} "
        f"ON CONFLICT(entity_key, feature_name) DO UPDATE SET {changes}"
    )


def _row_values(chunk: RowChunk) -> Iterator[tuple[Any, ...]]:
    """Of each row its key, its times, F values and F texts."""
    micros = chunk.event_micros.tolist()
    seconds = list(map(stock_seconds, micros))
    created = [None if moment == NO_TIME else stock_seconds(moment) for moment in chunk.created_micros.tolist()]
    return zip(chunk.keys, seconds, created, micros, *chunk.values, *chunk.texts(), strict=True)


def read_table(connection: sqlite3.Connection, table: str, request: CellRequest) -> Cells:
    """What a table holds of the features and keys of a request."""
    places = {key: place for place, key in enumerate(request.keys)}
    columns: dict[str, list[bytes | None]] = {name: [None] * len(request.keys) for name in request.names}
    micros = np.full(len(request.keys), NO_TIME)
    moment = "event_us" if _has_micros(connection, table) else "NULL"
    wanted = list(request.names)
    for some in _parts(list(places), KEYS_PER_QUERY):
        # A computed column has no declared type, for which sqlite3 would call a converter on every cell.
        query = (
            f"SELECT entity_key, feature_name, value, CAST(event_ts AS INTEGER), {moment} FROM {quoted(table)} "
            f"WHERE entity_key IN ({_marks(len(some))}) AND feature_name IN ({_marks(len(wanted))})"
        )
        for key, name, value, event_ts, event_us in connection.execute(query, [*some, *wanted]).fetchall():
            place = places[key]
            columns[name][place] = value
            micros[place] = max(int(micros[place]), stored_micros(event_ts, event_us))
    return _repeated(request, places, Cells(values=list(columns.values()), event_micros=micros))


def _repeated(request: CellRequest, places: dict[bytes, int], cells: Cells) -> Cells:
    """Answers to keys that were asked for more than once, each time."""
    if len(places) == len(request.keys):
        return cells
    rows = [places[key] for key in request.keys]
    return Cells(
        values=[[values[row] for row in rows] for values in cells.values], event_micros=cells.event_micros[rows]
    )


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _marks(count: int) -> str:
    return ", ".join(["?"] * count)
