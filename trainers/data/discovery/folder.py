"""Tables in a folder: files that belong together, such as one file a day, and what each of their columns holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from trainers.data.connection import literal, quote
from trainers.data.dataset import SpecError
from trainers.data.delimited import Delimiter, complaint, first_line, guessed
from trainers.data.discovery.profiles import ColumnProfile, profile
from trainers.data.source_files import READERS, SourceReader, SourceTable, suffix
from trainers.progress import SILENT, Progress, Stage

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
    delimiter: str | None
    """What separates its columns, where that is not what its suffix says."""
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


def find_tables(connection: duckdb.DuckDBPyConnection, folder: Path, progress: Progress = SILENT) -> list[FoundTable]:
    """Every table in a folder and the folders in it, longest first.

    Raises:
        SpecError: The folder holds no file, or one that cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if _is_data(path, folder))
    if not files:
        raise SpecError(f"{folder} must hold {', '.join(READERS)} files (got none); give the folder of your data")
    groups = [
        group for likeness in _alike(files, folder).values() for group in _same_columns(connection, folder, likeness)
    ]
    types = [group.reader.types(connection) for group in groups]
    with progress.stage("look at the columns", sum(map(len, types))) as stage:
        found = [_table(connection, group, kinds, stage) for group, kinds in zip(groups, types, strict=True)]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Files that are read as one table."""

    pattern: str
    num_files: int
    reader: SourceReader
    delimiter: str | None


def _same_columns(connection: duckdb.DuckDBPyConnection, folder: Path, files: list[Path]) -> Iterator[_Group]:
    """One group of all files where they have the same columns, else one of each by its own name."""
    names = [path.relative_to(folder).as_posix() for path in files]
    each = [_group(folder, name, [path]) for name, path in zip(names, files, strict=True)]
    headers = {(*group.reader.types(connection), group.delimiter) for group in each}
    if len(files) > 1 and len(headers) == 1:
        yield _group(folder, _NUMBERS.sub("*", names[0]), files)
    else:
        yield from each


def _group(folder: Path, pattern: str, files: list[Path]) -> _Group:
    delimiter = _delimiter(files[0])
    reader = SourceReader(folder / "dataset.yaml", pattern, SourceTable(files=pattern, delimiter=delimiter))
    return _Group(pattern=pattern, num_files=len(files), reader=reader, delimiter=delimiter)


def _delimiter(file: Path) -> Delimiter | None:
    """What separates the columns of a file of texts, where that is not what its suffix says."""
    usual = READERS[suffix(file)]
    if usual == "parquet":
        return None
    line = first_line(file)
    found = guessed(line)
    return found if found not in (None, usual) and usual not in line else None


def _table(connection: duckdb.DuckDBPyConnection, group: _Group, types: Mapping[str, str], stage: Stage) -> FoundTable:
    try:
        source, num_rows = _copied(connection, group.reader.source())
        read = source if num_rows <= PROFILED_ROWS else f"(FROM {source} LIMIT {PROFILED_ROWS})"
        columns = {}
        for name, kind in types.items():
            columns[name] = profile(connection, read, name, kind)
            stage.advance()
    except duckdb.Error as error:
        raise SpecError(f"{group.pattern} must be readable (got: {complaint(error)})") from error
    return FoundTable(
        pattern=group.pattern,
        num_files=group.num_files,
        num_rows=num_rows,
        source=source,
        delimiter=group.delimiter,
        columns=columns,
    )


def _copied(connection: duckdb.DuckDBPyConnection, source: str) -> tuple[str, int]:
    """A copy of a table that is not too long, so that its texts are parsed once; and its number of rows."""
    row = connection.execute(f"SELECT count(*) FROM {source}").fetchone()
    num_rows = int(row[0]) if row else 0
    if num_rows > PROFILED_ROWS or "read_parquet" in source:
        return source, num_rows
    number = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0][0]
    connection.execute(f"CREATE TABLE copied_{number} AS FROM {source}")
    return f"copied_{number}", num_rows


def has_repeats(connection: duckdb.DuckDBPyConnection, table: FoundTable, user: str, pin: str) -> bool:
    """Whether at least one impression in five is of a Pin that its user has met before."""
    pair = f"{quote(user)}::VARCHAR, {quote(pin)}::VARCHAR"
    row = connection.execute(f"SELECT count(*), count(DISTINCT ({pair})) FROM {table.source}").fetchone()
    return row is not None and row[0] - row[1] >= _REPEATED_SHARE * row[0]
