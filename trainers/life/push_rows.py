"""Files of rows to push: parquet, CSV or JSON lines with a join key and attributes, read in bounded chunks.

Of a row, what is empty, null or absent says nothing. CSV cells are read as the attribute's declared type, and lists as
JSON.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import AttributeField, RepoManifest, join_key
from feature_repo.push.attributes import check_attributes
from feature_repo.push.entities import is_entity_key
from feature_repo.push.errors import PushError

CHUNK_ROWS = 2_000
"""Rows that are computed and written at a time; other pushes into the run wait for so many at most."""
SUFFIXES = (".parquet", ".csv", ".jsonl")
LONGEST_CELL = 1 << 24
"""Characters of a CSV cell, which may hold a long list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChunk:
    """Some rows of a file."""

    ids: tuple[int, ...]
    attributes: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFile:
    """A file of rows of one entity."""

    path: Path
    shown: str
    """What messages call it."""
    suffix: str
    """One of `SUFFIXES`."""
    manifest: RepoManifest
    entity: str

    def check(self) -> int:
        """Read everything once; returns the number of rows.

        Raises:
            PushError: A column is absent or unknown, a value is not of its type, or an entity comes twice; the text
                names the row.
        """
        keys = []
        for first, rows in self._numbered():
            ids = [self._key(number, row) for number, row in enumerate(rows, first)]
            keys.append(np.array(ids, np.int64))
            self._check_attributes(first, rows)
        everything = np.concatenate(keys) if keys else np.empty(0, np.int64)
        if not len(everything):
            raise PushError(f"{self.shown} must hold a row (got none); write the {self.entity}s to push into it")
        unique, times = np.unique(everything, return_counts=True)
        if len(unique) < len(everything):
            twice = int(unique[times > 1][0])
            raise PushError(f"each {self.entity} must come once (got {join_key(self.entity)} {twice} twice); keep one")
        return len(everything)

    def chunks(self) -> Iterator[RowChunk]:
        """The rows of a checked file, `CHUNK_ROWS` at a time."""
        name = join_key(self.entity)
        for _, rows in self._numbered():
            values = {row[name]: {key: value for key, value in row.items() if key != name} for row in rows}
            yield RowChunk(ids=tuple(values), attributes=values)

    def _key(self, number: int, row: Mapping[str, Any]) -> int:
        name = join_key(self.entity)
        if name not in row:
            raise PushError(f"{self.shown}, row {number}: must have {name} (got {', '.join(row) or 'nothing'}); add it")
        if not is_entity_key(row[name]):
            raise PushError(f"{self.shown}, row {number}: {name} must be an integer of 0 or more (got {row[name]!r})")
        return int(row[name])

    def _check_attributes(self, first: int, rows: Sequence[Mapping[str, Any]]) -> None:
        name = join_key(self.entity)
        for number, row in enumerate(rows, first):
            given = {key: value for key, value in row.items() if key != name}
            try:
                check_attributes(self.manifest, self.entity, [row[name]], {row[name]: given})
            except PushError as error:
                raise PushError(f"{self.shown}, row {number}: {error}") from error

    def _numbered(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Chunks with the number of their first row, from 1; nulls left out."""
        read = {".parquet": self._parquet, ".csv": self._csv, ".jsonl": self._jsonl}[self.suffix]
        rows, first = read(), 1
        while chunk := list(islice(rows, CHUNK_ROWS)):
            yield first, [{name: value for name, value in row.items() if value is not None} for row in chunk]
            first += len(chunk)

    def _parquet(self) -> Iterator[dict[str, Any]]:
        try:
            with pq.ParquetFile(self.path) as file:
                self._check_columns(file.schema_arrow.names)
                for batch in file.iter_batches(CHUNK_ROWS):
                    yield from batch.to_pylist()
        except pa.ArrowInvalid as error:
            raise PushError(f"{self.shown} must be a parquet file (got: {error}); write it again") from error

    def _csv(self) -> Iterator[dict[str, Any]]:
        readers = {field.name: _reader(field) for field in self.manifest.attributes(self.entity)}
        readers[join_key(self.entity)] = int
        csv.field_size_limit(LONGEST_CELL)
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            self._check_columns(lines.fieldnames or ())
            for number, line in enumerate(lines, 1):
                if None in line or None in line.values():
                    raise PushError(f"{self.shown}, row {number}: must have as many cells as the header; correct it")
                yield {name: self._cell(number, name, readers[name], text) for name, text in line.items() if text != ""}

    def _cell(self, number: int, name: str, read: Callable[[str], Any], text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            shown = text if len(text) <= 80 else f"{text[:80]}…"
            raise PushError(
                f"{self.shown}, row {number}: {name} must be of its type (got {shown!r}: {error})"
            ) from error

    def _jsonl(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise PushError(f"{self.shown}, line {number}: must be JSON (got: {error}); correct it") from error
                if not isinstance(row, dict):
                    raise PushError(f"{self.shown}, line {number}: must be a JSON object (got {type(row).__name__})")
                yield row

    def _check_columns(self, names: Sequence[str]) -> None:
        known = [join_key(self.entity), *(field.name for field in self.manifest.attributes(self.entity))]
        if known[0] not in names:
            raise PushError(f"{self.shown} must have the column {known[0]} (got {', '.join(names) or 'none'}); add it")
        if unknown := [name for name in names if name not in known]:
            raise PushError(
                f"columns of {self.shown} must be among {', '.join(known)} (got {unknown}); drop the others"
            )
        if twice := sorted({name for name in names if list(names).count(name) > 1}):
            raise PushError(f"{self.shown} must have each column once (got {twice} twice); drop one")


def row_file(path: Path, manifest: RepoManifest, entity: str) -> RowFile:
    """A file to be read.

    Raises:
        PushError: Its kind is none of `SUFFIXES`.
        FileNotFoundError: There is no such file.
    """
    if (kind := path.suffix.lower()) not in SUFFIXES:
        raise PushError(f"--file must end in {', '.join(SUFFIXES)}, or be - for JSON lines (got {str(path)!r})")
    if not path.is_file():
        raise FileNotFoundError(f"--file must be a file (got {path}); correct the path")
    return RowFile(path=path, shown=str(path), suffix=kind, manifest=manifest, entity=entity)


def copied_rows(path: Path, manifest: RepoManifest, entity: str) -> RowFile:
    """JSON lines that came from standard input and lie in a file now."""
    return RowFile(path=path, shown="standard input", suffix=".jsonl", manifest=manifest, entity=entity)


def _reader(field: AttributeField) -> Callable[[str], Any]:
    if field.kind in ("multi_valued", "vector"):
        return json.loads
    readers: dict[str, Callable[[str], Any]] = {"int64": int, "float": float, "string": str}
    return readers[field.type]
