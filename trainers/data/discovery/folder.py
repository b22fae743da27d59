"""Tables in a folder: files that belong together, such as one file a day, and what each of their columns holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from trainers.data.connection import literal, quote
from trainers.data.dataset import SpecError
from trainers.data.discovery.profiles import ColumnProfile, profile
from trainers.data.source_files import READERS, SourceReader, SourceTable, suffix

PROFILED_ROWS = 2_000_000
"""Rows of a table that are looked at; the rest is only counted."""
_NUMBERS = re.compile(r"\d+(?:[-_.]?\d+)*")
_MOST_COMPARED = 200_000
_REPEATED_SHARE = 0.2
_MOST_LISTED = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundTable:
    """Files with the same columns, read as one table."""

    pattern: str
    """Glob of its files, relative to the folder."""
    num_files: int
    num_rows: int
    source: str
    """SQL of all its rows."""
    columns: dict[str, ColumnProfile]
    """What each column holds, in the order of the files."""

    def listed(self) -> str:
        """Its columns for an error message, the first of many."""
        names = list(self.columns)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        return ", ".join(names[:_MOST_LISTED]) + more

    @property
    def stem(self) -> str:
        """What its files are called, without numbers and suffix."""
        return self.pattern.rpartition("/")[2].partition(".")[0].strip("*-_ ").lower()


def find_tables(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[FoundTable]:
    """Every table in a folder and the folders in it, longest first.

    Raises:
        SpecError: The folder holds no file that can be read.
    """
    files = sorted(path for path in folder.rglob("*") if _is_data(path, folder))
    if not files:
        raise SpecError(f"{folder} must hold {', '.join(READERS)} files (got none); give the folder of your data")
    found = [
        _table(connection, folder, pattern, len(group))
        for likeness in _alike(files, folder).values()
        for pattern, group in _same_columns(connection, folder, likeness)
    ]
    return sorted(found, key=lambda table: (-table.num_rows, table.pattern))


def shared(
    connection: duckdb.DuckDBPyConnection, inner: tuple[FoundTable, str], outer: tuple[FoundTable, str]
) -> float:
    """Share, 0 to 1, of the different values of a column that another table's column has too."""
    table, column = inner
    return _share_known(connection, f"{quote(column)}::VARCHAR", table.source, outer)


def shared_elements(
    connection: duckdb.DuckDBPyConnection,
    inner: tuple[FoundTable, str],
    separator: str | None,
    outer: tuple[FoundTable, str],
) -> float:
    """The same of the elements of a column's lists, or of what stands between separators; 0 where none separates."""
    table, column = inner
    lists = f"string_split({quote(column)}, {literal(separator)})" if separator else quote(column)
    source = f"{table.source} WHERE contains({quote(column)}, {literal(separator)})" if separator else table.source
    return _share_known(connection, f"unnest({lists}::VARCHAR[])", source, outer)


def _share_known(
    connection: duckdb.DuckDBPyConnection, value: str, source: str, outer: tuple[FoundTable, str]
) -> float:
    other, its = outer
    values = f"FROM (SELECT DISTINCT {value} AS value_ FROM {source}) WHERE value_ IS NOT NULL LIMIT {_MOST_COMPARED}"
    known = f"SELECT {quote(its)}::VARCHAR FROM {other.source}"
    row = connection.execute(f"SELECT avg((value_ IN ({known}))::INTEGER) FROM ({values})").fetchone()
    return float(row[0] or 0.0) if row else 0.0


def _is_data(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and suffix(path) in READERS and path.stat().st_size > 0


def _alike(files: list[Path], folder: Path) -> dict[str, list[Path]]:
    """Files whose paths differ in numbers only, by that path with stars."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_NUMBERS.sub("*", path.relative_to(folder).as_posix()), []).append(path)
    return groups


def _same_columns(
    connection: duckdb.DuckDBPyConnection, folder: Path, files: list[Path]
) -> Iterator[tuple[str, list[Path]]]:
    """One glob for all files where they have the same columns, else each by its own name."""
    names = [path.relative_to(folder).as_posix() for path in files]
    headers = {tuple(_reader(folder, name).types(connection)) for name in names}
    if len(files) > 1 and len(headers) == 1:
        yield _NUMBERS.sub("*", names[0]), files
    else:
        yield from ((name, [path]) for name, path in zip(names, files, strict=True))


def _reader(folder: Path, pattern: str) -> SourceReader:
    return SourceReader(folder / "dataset.yaml", pattern, SourceTable(files=pattern))


def _table(connection: duckdb.DuckDBPyConnection, folder: Path, pattern: str, num_files: int) -> FoundTable:
    reader = _reader(folder, pattern)
    source = reader.source()
    row = connection.execute(f"SELECT count(*) FROM {source}").fetchone()
    num_rows = int(row[0]) if row else 0
    read = source if num_rows <= PROFILED_ROWS else f"(FROM {source} LIMIT {PROFILED_ROWS})"
    columns = {name: profile(connection, read, name, kind) for name, kind in reader.types(connection).items()}
    return FoundTable(pattern=pattern, num_files=num_files, num_rows=num_rows, source=source, columns=columns)


def has_repeats(connection: duckdb.DuckDBPyConnection, table: FoundTable, user: str, pin: str) -> bool:
    """Whether at least one impression in five is of a Pin that its user has met before."""
    pair = f"{quote(user)}::VARCHAR, {quote(pin)}::VARCHAR"
    row = connection.execute(f"SELECT count(*), count(DISTINCT ({pair})) FROM {table.source}").fetchone()
    return row is not None and row[0] - row[1] >= _REPEATED_SHARE * row[0]
