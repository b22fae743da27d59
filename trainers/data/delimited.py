"""CSV and TSV files read as they are written: delimiter, header and quotes are known, nothing is detected.

Detection by DuckDB costs a tenth of a second a file, and leaves out rows that don't fit the dialect it settles on.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO, cast

import duckdb

from trainers.data.connection import literal

Delimiter = Literal[",", ";", "\t", "|"]
DELIMITERS: tuple[Delimiter, ...] = (",", ";", "\t", "|")
FILE, ROW = "headwater_file", "headwater_row"
"""Columns that say where a row stands; the header of a CSV file is row 1, the first row of a parquet file too."""

_CAUSES: Mapping[str, str] = {
    "Expected Number of Columns": "quote values that hold the delimiter, or correct the row",
    "quote": "close the quote, and write quotes inside a quoted value twice",
    "utf-8": "save the file as UTF-8",
}


class FileError(ValueError):
    """A file is not what its name and its declaration say."""


def header(path: Path, delimiter: str) -> tuple[str, ...]:
    """Names of a file's columns; one without a name is called by its place, `column0`.

    Raises:
        FileError: The file has no header line that can be read, or it names a column twice.
    """
    try:
        with _open(path) as file:
            first = next(csv.reader(file, delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise FileError(
            f"{path.name} must be text in UTF-8, beginning with a header (got: {error}); save the file as UTF-8"
        ) from error
    names = tuple(name.strip() or f"column{place}" for place, name in enumerate(first))
    if not names:
        raise FileError(f"{path.name} must have a header line (got an empty first line); write the columns' names")
    other = guessed(names[0]) if len(names) == 1 else None
    if other is not None:
        raise FileError(
            f"{path.name}, row 1: columns must be separated by {delimiter!r} (got {names[0]!r}, which looks separated "
            f"by {other!r}); say `delimiter: {other!r}` of this table"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FileError(f"{path.name}, row 1: columns must have different names (got {twice[0]!r} twice); rename one")
    return names


def guessed(line: str) -> Delimiter | None:
    """The delimiter that a header line seems to have; none where it has none."""
    counts = {each: line.count(each) for each in DELIMITERS}
    best = max(DELIMITERS, key=lambda each: counts[each])
    return best if counts[best] else None


def first_line(path: Path) -> str:
    """The header line as it is; empty where it cannot be read."""
    try:
        with _open(path) as file:
            return file.readline()
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        return ""


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def rows(path: Path, names: Sequence[str], delimiter: str, shown: str) -> str:
    """SQL of a file's rows in their order, every value as text.

    Args:
        names: The file's columns, from `header`.
        shown: What the file is called in `FILE`.
    """
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    # The window keeps the rows in their order. With `parallel = false` DuckDB leaves out, without a word, whatever
    # follows a quote that is never closed.
    return (
        f"SELECT *, {literal(shown)} AS {FILE}, row_number() OVER () + 1 AS {ROW} FROM read_csv({literal(path)}, "
        f"auto_detect = false, header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', "
        f"columns = {{{columns}}})"
    )


def complaint(error: duckdb.Error) -> str:
    """What DuckDB says about a file, in one line: which file and row, what is wrong there, and what to do."""
    text = str(error)
    found = re.search(r"CSV Error on Line: (\d+)\s+Original Line: (.*)", text)
    file = re.search(r"file = (.*)", text)
    if found is None or file is None:
        return " ".join(line.strip() for line in text.splitlines()[:2])
    about = [line.strip() for line in text[found.end() :].splitlines() if line.strip()]
    cause = next((line for line in about if any(word in line for word in _CAUSES)), about[0])
    remedy = next((remedy for word, remedy in _CAUSES.items() if word in cause), "correct the row")
    return f"{Path(file[1]).name}, row {found[1]}, {found[2][:80]!r}: {cause}; {remedy}"
