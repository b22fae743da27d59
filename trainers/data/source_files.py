"""One table of a user's own files: what its YAML says, and the query that reads it with canonical columns.

Values that cannot be read are passed on as they are, so that the event log's checks count them and set them aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import duckdb
from pydantic import Field, model_validator

from trainers.data.columns import NAIVE_TYPES, ZONED_TEXT, Column
from trainers.data.connection import literal, moment, quote
from trainers.data.dataset import Moment, SpecError, Strict
from trainers.data.delimited import FILE, ROW, Delimiter, FileError, complaint, header, rows
from trainers.data.source_places import SOURCE_FILE, SOURCE_ROW

READERS = {".parquet": "parquet", ".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
"""Kinds of files, and what separates the columns of one unless the declaration says otherwise."""
_UNITS_PER_SECOND = {"unix_s": 1, "unix_ms": 1000}
_DATE_TEXT = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ROW_BITS = 40

KeyType = Literal["int64", "string"]


class Timestamp(Strict):
    """How a table writes its moments."""

    format: Literal["iso", "unix_s", "unix_ms"] = "iso"
    """ISO 8601 texts or timestamp columns, or seconds or milliseconds since 1970."""
    timezone: Literal["UTC"] | None = None
    """Zone of moments that name none; without it such moments are refused."""


class LabelRule(Strict):
    """A label that follows from one column; a missing value gives no label."""

    column: str
    at_least: float | None = None
    """The label is 1 from this number on, 0 below it."""
    equals: bool | int | float | str | None = None
    """The label is 1 for this value, 0 for any other."""

    @model_validator(mode="after")
    def _check_one_rule(self) -> Self:
        if self.at_least is not None and self.equals is not None:
            raise ValueError(f"column {self.column} must have at_least or equals (got both); keep one")
        return self

    def sql(self) -> str:
        """The label, or the value itself where it cannot be read as a number."""
        raw = f"s.{quote(self.column)}"
        if self.at_least is not None:
            return _ruled(raw, f"TRY_CAST({raw} AS DOUBLE)", f">= {self.at_least!r}")
        if isinstance(self.equals, bool):
            return _ruled(raw, f"TRY_CAST({raw} AS BOOLEAN)", f"= {self.equals}")
        if isinstance(self.equals, (int, float)):
            return _ruled(raw, f"TRY_CAST({raw} AS DOUBLE)", f"= {self.equals!r}")
        if self.equals is not None:
            return _ruled(raw, f"{raw}::VARCHAR", f"= {literal(self.equals)}")
        return raw


def _ruled(raw: str, readable: str, test: str) -> str:
    return f"coalesce(({readable} {test})::TINYINT::VARCHAR, {raw}::VARCHAR)"


class SourceTable(Strict):
    """One table of the event log and the files that it comes from."""

    files: tuple[str, ...] | str
    """File names or globs, relative to the YAML: `.parquet`, `.csv`, `.tsv`, the last two also with `.gz`."""
    delimiter: Delimiter | None = None
    """What separates the columns of texts; a comma in `.csv` and a tab in `.tsv` files unless said."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of the event log -> column of the files; a column that is not named here keeps its name."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Column of the event log -> one text for every row, such as `surface: web`."""
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Text column of the event log -> texts of the files to the texts that the declaration uses."""
    separators: dict[str, str] = Field(default_factory=dict)
    """Multi-valued attribute -> text between its values, for files that have no lists."""
    labels: dict[str, str | LabelRule] = Field(default_factory=dict)
    """Label -> the column that holds it, or a rule."""
    timestamp: Timestamp = Timestamp()
    holds_from: Moment | None = None
    """For users and Pins whose rows have no time: the moment from which all of them hold."""
    covers_all: bool = True
    """For users and Pins: false where impressions name some that the table lacks, which then have no attributes."""


class SourceReader:
    """Reads one table of a YAML.

    Args:
        yaml: The YAML, for messages and as the place that globs are relative to.
        key: Where in the YAML the table stands, for messages: `tables.impressions`.
        table: What the YAML says about it.
    """

    def __init__(self, yaml: Path, key: str, table: SourceTable) -> None:
        self._yaml = yaml
        self._key = key
        self._table = table
        self._source: str | None = None

    @property
    def table(self) -> SourceTable:
        """What the YAML says about it."""
        return self._table

    def files(self) -> list[Path]:
        """The files that the globs match, sorted by path.

        Raises:
            SpecError: A glob matches nothing, or the files are not all of one known kind.
        """
        globs = (self._table.files,) if isinstance(self._table.files, str) else self._table.files
        found: set[Path] = set()
        for pattern in globs:
            matches = self._matches(pattern)
            if not matches:
                self._refuse("files", f"must match at least one file (got none for {pattern!r}); check the path")
            found.update(matches)
        kinds = {suffix(path) for path in found}
        if len(kinds) != 1 or not kinds <= set(READERS):
            self._refuse(
                "files", f"must all be of one kind among {', '.join(READERS)} (got {', '.join(sorted(kinds))})"
            )
        return sorted(found)

    def _matches(self, pattern: str) -> list[Path]:
        path = Path(pattern)
        if path.is_absolute():
            return [found for found in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if found.is_file()]
        return [found for found in self._yaml.parent.glob(pattern) if found.is_file()]

    def query(
        self, connection: duckdb.DuckDBPyConnection, columns: tuple[Column, ...], keys: Mapping[str, KeyType]
    ) -> str:
        """A query that reads the files with canonical column names, in the order of files and rows.

        Args:
            connection: Connection used to look at the files' columns.
            columns: Canonical columns of the table.
            keys: Type of each entity key and of the impression's id in the files.

        Raises:
            SpecError: A column is not in the files, or a timestamp doesn't say its zone.
        """
        source = self.source()
        types = self.types(connection)
        self._check_names(columns)
        selected = []
        for column in columns:
            value = self._value(column, types, keys)
            if value is not None:
                selected.append(f"{value} AS {quote(column.name)}")
        beside = literal(f"{self._yaml.parent}/")
        place = f"replace(s.{FILE}, {beside}, '') AS {SOURCE_FILE}, s.{ROW} AS {SOURCE_ROW}"
        return f"SELECT {', '.join(selected)}, {place} FROM {source} AS s"

    def key_texts(self, connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
        """A query for the different keys of a column as texts; none when the files lack it.

        Args:
            connection: Connection used to look at the files' columns.
            name: `user_id`, `pin_id` or `pin_ids`.
        """
        source, mapped = self.source(), self._table.columns.get(name, name)
        if mapped not in self.types(connection):
            return None
        raw = f"s.{quote(mapped)}"
        text = f"unnest({self._split(name, raw)}::VARCHAR[])" if name == "pin_ids" else f"{raw}::VARCHAR"
        return f"SELECT DISTINCT {text} AS key FROM {source} AS s WHERE {raw} IS NOT NULL"

    def mapped_columns(self) -> dict[str, dict[str, str]]:
        """By file as `SOURCE_FILE` has it: what the files call a column of the event log."""
        labels = {name: rule if isinstance(rule, str) else rule.column for name, rule in self._table.labels.items()}
        mapped = {**self._table.columns, **labels}
        return {str(file).removeprefix(f"{self._yaml.parent}/"): mapped for file in self.files()}

    def types(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """DuckDB type of every column of the files.

        Raises:
            SpecError: A file cannot be read.
        """
        try:
            described = connection.execute(f"DESCRIBE SELECT * FROM {self.source()}").fetchall()
        except duckdb.Error as error:
            self._refuse("files", f"must be readable as declared (got: {complaint(error)})")
        return {row[0]: row[1] for row in described if row[0] not in (FILE, ROW)}

    def source(self) -> str:
        """SQL of all rows of the files, with `FILE` and `ROW`.

        Raises:
            SpecError: A glob matches nothing, only empty files, or a file without a header.
        """
        if self._source is None:
            self._source = self._read()
        return self._source

    def _read(self) -> str:
        files = self.files()
        written = [file for file in files if file.stat().st_size]
        if not written:
            self._refuse("files", f"must have a header line (got only empty files such as {files[0].name!r}); add rows")
        reader = READERS[suffix(files[0])]
        if reader == "parquet":
            return (
                f"(SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS {ROW} FROM read_parquet([{_listed(files)}"
                f"], union_by_name = true, filename = '{FILE}', file_row_number = true))"
            )
        delimiter = self._table.delimiter or reader
        try:
            each = [rows(file, header(file, delimiter), delimiter, str(file)) for file in written]
        except FileError as error:
            self._refuse("files", str(error))
        return f"({' UNION ALL BY NAME '.join(each)})"

    def _check_names(self, columns: tuple[Column, ...]) -> None:
        labels = {column.name for column in columns if column.kind == "label"}
        others = {column.name for column in columns} - labels
        texts = {column.name for column in columns if column.kind == "text"}
        fields = {"columns": others, "constants": others, "values": texts, "separators": others, "labels": labels}
        for field, known in fields.items():
            for name in getattr(self._table, field):
                if name not in known:
                    self._refuse(
                        field, f"has no column {name!r} (known are {', '.join(sorted(known))}); correct the name"
                    )

    def _value(self, column: Column, types: Mapping[str, str], keys: Mapping[str, KeyType]) -> str | None:
        """SQL of one canonical column; none for an optional one that the files lack."""
        name = column.name
        if name in self._table.constants:
            return literal(self._table.constants[name])
        if column.kind == "label":
            return self._label(name, types)
        mapped = self._table.columns.get(name, name)
        if mapped not in types:
            return self._absent(column, mapped, types)
        raw = f"s.{quote(mapped)}"
        if column.kind == "time":
            return self._time(mapped, types[mapped])
        if column.kind == "key":
            return hashed_key(raw) if keys.get(name) == "string" else raw
        if column.kind == "keys":
            lists = self._split(name, raw)
            hashed = f"list_transform({lists}::VARCHAR[], lambda k: {hashed_key('k')})"
            return hashed if keys.get("pin_id") == "string" else lists
        return self._renamed(name, self._split(name, raw))

    def _renamed(self, name: str, value: str) -> str:
        renamed = self._table.values.get(name)
        if not renamed:
            return value
        cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in renamed.items())
        return f"CASE {value}::VARCHAR {cases} ELSE {value}::VARCHAR END"

    def _split(self, name: str, raw: str) -> str:
        separator = self._table.separators.get(name)
        return f"string_split({raw}, {literal(separator)})" if separator else raw

    def _label(self, name: str, types: Mapping[str, str]) -> str:
        declared = self._table.labels.get(name, name)
        rule = LabelRule(column=declared) if isinstance(declared, str) else declared
        if rule.column not in types:
            self._refuse(f"labels.{name}", _not_there(rule.column, types))
        return rule.sql()

    def _absent(self, column: Column, mapped: str, types: Mapping[str, str]) -> str | None:
        if column.kind == "time" and self._table.holds_from:
            return moment(self._table.holds_from)
        if column.name == "impression_id" and mapped == column.name:
            return _row_identity(suffix(self.files()[0]), self.files())
        if column.required or column.name in self._table.columns:
            self._refuse(f"columns.{column.name}", _not_there(mapped, types))
        return None

    def _time(self, mapped: str, source_type: str) -> str:
        raw, stamp = f"s.{quote(mapped)}", self._table.timestamp
        if stamp.format != "iso":
            micros = f"TRY_CAST({raw} AS DOUBLE) * {1_000_000 // _UNITS_PER_SECOND[stamp.format]}"
            converted = f"TRY(make_timestamp(TRY_CAST(round({micros}) AS BIGINT))) AT TIME ZONE 'UTC'"
            return f"coalesce(({converted})::VARCHAR, {raw})" if source_type == "VARCHAR" else converted
        if source_type in NAIVE_TYPES:
            if stamp.timezone is None:
                self._refuse("timestamp", f"must say `timezone: UTC` (got naive {source_type} in column {mapped!r})")
            return f"{raw}::TIMESTAMP AT TIME ZONE 'UTC'"
        if source_type == "VARCHAR" and stamp.timezone:
            midnight = f"CASE WHEN regexp_full_match({raw}, '{_DATE_TEXT}') THEN 'T00:00:00' ELSE '' END"
            return f"CASE WHEN regexp_full_match({raw}, '{ZONED_TEXT}') THEN {raw} ELSE {raw} || {midnight} || 'Z' END"
        return raw

    def _refuse(self, field: str, text: str) -> Any:
        raise SpecError(f"{self._yaml}: {self._key}.{field} {text}")


def hashed_key(text: str) -> str:
    """SQL of the entity key of a text: 63 bits of its MD5, so that it never depends on the other keys."""
    return f"(md5_number_lower({text}::VARCHAR) >> 1)::BIGINT"


def _row_identity(suffix: str, files: list[Path]) -> str:
    """SQL of an id from the place of a row in the sorted files."""
    if READERS[suffix] != "parquet":
        return "row_number() OVER ()"
    ordinal = f"list_position([{_listed(files)}], s.{FILE})::BIGINT"
    return f"(({ordinal} - 1) << {_ROW_BITS}) + s.{ROW} - 1"


def _listed(files: list[Path]) -> str:
    return ", ".join(map(literal, files))


def _not_there(column: str, types: Mapping[str, str]) -> str:
    return f"must be a column of the files (got {column!r}, have {', '.join(types)}); map the right column"


def suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
