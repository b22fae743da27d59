"""What one column of a table holds, whatever type its file gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import duckdb

from trainers.data.columns import NAIVE_TYPES, ZONED_TEXT, ZONED_TYPES
from trainers.data.connection import literal, quote

Reading = Literal["empty", "binary", "time", "integer", "number", "text", "list", "vector"]
TimeFormat = Literal["zoned", "naive", "unix_s", "unix_ms"]

FEW_NUMBERS = 30
"""So many different numbers may be names of something, not amounts."""
SEPARATORS = ("|", ";", ",")
_CLEAR = 0.98
"""Share of the values that must be readable one way; the rest are faults that the checks will count."""
_INTEGER, _DATE_START = r"\s*[+-]?[0-9]{1,18}\s*", r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}.*"
_UNIX_UNITS: Mapping[TimeFormat | None, int] = {"unix_s": 1, "unix_ms": 1000}
_EARLIEST, _LATEST = 946_684_800, 2_524_608_000
"""2000 and 2050 in seconds of Unix time."""
_MULTI_VALUED_SHARE = 0.05
_FEW_PARTS = 0.5
_BRACKET = r"[\[\](){}]"
_LONGEST_SHOWN = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnProfile:
    """Facts about a column, and how its values can be read."""

    name: str
    reading: Reading
    rows: int
    present: int
    """Rows with a value."""
    distinct: int
    """Different values."""
    smallest: str
    largest: str
    time: TimeFormat | None = None
    """How moments are written, where the column holds some."""
    separator: str | None = None
    """Text between several values of a text."""
    dim: int = 0
    """Elements of every list, where all have as many."""
    elements_are_numbers: bool = False
    """Whether list elements are numbers, not texts."""

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.present == self.rows == self.distinct and self.rows > 1

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to learn from it."""
        return self.distinct <= 1

    @property
    def may_be_key(self) -> bool:
        """Whether the values could name entities."""
        return self.reading in ("integer", "text", "binary") and self.distinct > 1 and self.separator is None

    def examples(self) -> str:
        """Smallest and largest value, for people."""
        shown = [self._shown(each) for each in (self.smallest, self.largest)]
        return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"

    def _shown(self, value: str) -> str:
        if self.time in _UNIX_UNITS:
            moment = datetime.fromtimestamp(int(value) / _UNIX_UNITS[self.time], UTC)
            return f"{moment:%Y-%m-%d %H:%M}"
        return value if len(value) <= _LONGEST_SHOWN else f"{value[: _LONGEST_SHOWN - 1]}…"


def moment_sql(column: ColumnProfile) -> str:
    """SQL of a column's moments as UTC timestamps without a zone, null where a value is none."""
    raw = quote(column.name)
    if column.time in _UNIX_UNITS:
        micros = f"TRY_CAST({raw} AS DOUBLE) * {1_000_000 // _UNIX_UNITS[column.time]}"
        return f"make_timestamp(TRY_CAST(round({micros}) AS BIGINT))"
    if column.time == "zoned":
        return f"(TRY_CAST({raw} AS TIMESTAMPTZ) AT TIME ZONE 'UTC')"
    return f"TRY_CAST({raw} AS TIMESTAMP)"


def profile(connection: duckdb.DuckDBPyConnection, source: str, name: str, sql_type: str) -> ColumnProfile:
    """Look at every value of a column once."""
    if sql_type.endswith("]"):
        return _list_profile(connection, source, name, sql_type)
    text = f"trim({quote(name)}::VARCHAR)"
    integer = f"CASE WHEN regexp_full_match({text}, {literal(_INTEGER)}) THEN TRY_CAST({text} AS BIGINT) END"
    number = f"TRY_CAST({text} AS DOUBLE)"
    wanted = [
        "count(*)",
        f"count(*) FILTER (WHERE {text} <> '')",
        f"count(DISTINCT {text}) FILTER (WHERE {text} <> '')",
        f"count({integer})",
        f"count({number}) FILTER (WHERE isfinite({number}))",
        f"min({number})",
        f"max({number})",
        f"count(*) FILTER (WHERE {number} = trunc({number}))",
        f"min({text}) FILTER (WHERE {text} <> '')",
        f"max({text})",
        f"count(*) FILTER (WHERE lower({text}) IN ('0', '1', 'true', 'false'))",
        f"count(*) FILTER (WHERE regexp_full_match({text}, {literal(_DATE_START)}) "
        f"AND TRY_CAST({text} AS TIMESTAMP) IS NOT NULL)",
        f"count(*) FILTER (WHERE regexp_full_match({text}, {literal(ZONED_TEXT)}))",
        *(f"count(*) FILTER (WHERE contains({text}, {literal(each)}))" for each in SEPARATORS),
    ]
    row = connection.execute(f"SELECT {', '.join(wanted)} FROM {source}").fetchall()[0]
    found = _read(name, sql_type, row)
    if found.separator and not _repeats(connection, source, text, found.separator):
        return replace(found, separator=None)
    return found


def _repeats(connection: duckdb.DuckDBPyConnection, source: str, text: str, separator: str) -> bool:
    """Whether the parts of a text come again and again, as tags do and sentences do not."""
    parts = f"SELECT unnest(string_split({text}, {literal(separator)})) AS part FROM {source}"
    bracketed = f"bool_or(regexp_matches(part, {literal(_BRACKET)}))"
    row = connection.execute(f"SELECT count(*), count(DISTINCT part), {bracketed} FROM ({parts})").fetchone()
    # A range such as `(0,10]` is one value.
    return row is not None and row[1] <= _FEW_PARTS * row[0] and not row[2]


def _read(name: str, sql_type: str, row: tuple[object, ...]) -> ColumnProfile:
    rows, present, distinct, integers, numbers = (int(str(each)) for each in row[:5])
    low, high = (float(str(each)) if each is not None else 0.0 for each in row[5:7])
    whole, binary, dates, zoned, *separated = (int(str(each)) for each in (row[7], *row[10:]))
    reading: Reading = "text"
    time: TimeFormat | None = None
    separator: str | None = None
    clear = _CLEAR * present
    if present == 0:
        reading = "empty"
    elif sql_type in (*NAIVE_TYPES, *ZONED_TYPES) or dates >= clear:
        reading, time = "time", "zoned" if sql_type in ZONED_TYPES or zoned >= clear else "naive"
    elif binary == present:
        reading = "binary"
    elif integers >= clear or (whole == present and distinct <= FEW_NUMBERS):
        time = _unix_format(name, low, high)
        reading = "time" if time else "integer"
        low, high = round(low), round(high)
    elif numbers >= clear:
        reading = "number"
    else:
        separator = next((sign for sign, n in zip(SEPARATORS, separated, strict=True) if _separates(n, present)), None)
    is_number = reading in ("integer", "number", "binary") and numbers == present
    shown = (f"{low:g}" if reading == "number" else str(low), f"{high:g}" if reading == "number" else str(high))
    smallest, largest = shown if is_number and reading != "binary" else (str(row[8] or ""), str(row[9] or ""))
    return ColumnProfile(
        name=name,
        reading=reading,
        rows=rows,
        present=present,
        distinct=distinct,
        smallest=smallest,
        largest=largest,
        time=time,
        separator=separator,
    )


def _unix_format(name: str, low: float, high: float) -> TimeFormat | None:
    """Integers that are all moments of this half of the century, in a column that is called like a time."""
    if not any(word in name.lower() for word in ("time", "ts", "date", "at", "when", "moment", "since")):
        return None
    found = (form for form, unit in _UNIX_UNITS.items() if _EARLIEST * unit <= low and high <= _LATEST * unit)
    return next(found, None)


def _separates(count: int, present: int) -> bool:
    return count >= _MULTI_VALUED_SHARE * present


def _list_profile(connection: duckdb.DuckDBPyConnection, source: str, name: str, sql_type: str) -> ColumnProfile:
    column = quote(name)
    wanted = f"count(*), count({column}), count(DISTINCT {column}), min(len({column})), max(len({column}))"
    row = connection.execute(f"SELECT {wanted} FROM {source}").fetchall()[0]
    rows, present, distinct = (int(each) for each in row[:3])
    shortest, longest = (int(each or 0) for each in row[3:])
    numbers = any(word in sql_type for word in ("FLOAT", "DOUBLE", "DECIMAL"))
    fixed = shortest == longest > 1
    return ColumnProfile(
        name=name,
        reading="empty" if not present else "vector" if numbers and fixed else "list",
        rows=rows,
        present=present,
        distinct=distinct,
        smallest=f"{shortest} elements",
        largest=f"{longest} elements",
        dim=shortest if fixed else 0,
        elements_are_numbers=numbers or "INT" in sql_type,
    )
