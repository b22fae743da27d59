"""Parquet files behind a feature view.

A row is named by a *reference*: the file's index shifted by 40 bits, plus the row's number in its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource

REFERENCE_SHIFT = 40
"""Bits of a reference that hold the row number."""

References = npt.NDArray[np.int64]

SUPERSEDED_FILE = ".superseded.json"
"""File of a folder that names the files whose rows a merged one has."""
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class MissingSnapshotsError(FileNotFoundError):
    """A feature view has no snapshot yet."""


class SnapshotError(ValueError):
    """A file of a source is damaged, or lacks a column that is needed, or holds it with a type that does not fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshots:
    """The files of one source and the names of its columns in them."""

    label: str
    """Feature view or source, for error messages."""
    files: tuple[Path, ...]
    """Parquet files in name order; at least one."""
    timestamp_field: str
    created_field: str
    """Column of the moment of writing; empty when the source has none."""
    root: Path | None = None
    """Folder below which `name=value` folders are hive partitions; none for no partitions."""

    def partition(self, index: int) -> dict[str, str | None]:
        """Values that the folders of a file stand for, as text."""
        return {} if self.root is None else partition_values(self.files[index], self.root)


def find_files(source: DataSource | None, repo_path: Path, label: str) -> tuple[Path, ...]:
    """Files of a source in name order, at least one: a folder, one file or a glob, relative to the feature repo.

    Raises:
        ValueError: The source is not a local parquet `FileSource`.
        MissingSnapshotsError: There is no file yet.
    """
    path = source_path(local_source(source, label), repo_path)
    files = tuple(parquet_files(path))
    if not files:
        raise MissingSnapshotsError(
            f"{label} must have a snapshot under {path} (got none); "
            f"write its parquet files there, as `headwater {'publish' if '_embedding_' in label else 'features'}` does"
        )
    return files


def local_source(source: DataSource | None, label: str) -> FileSource:
    """The source, if it is one of parquet files.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(source, FileSource) or not isinstance(source.file_format, ParquetFormat | None):
        kind = type(source).__name__
        raise ValueError(f"{label} must have a FileSource of parquet files (got {kind}); use another offline store")
    return source


def source_path(source: FileSource, repo_path: Path) -> Path:
    """Absolute path of a source; Feast's own DuckDB store resolves it against the working directory instead."""
    path = str(source.path).removeprefix("file://")
    if "://" in path:
        raise ValueError(f"source {source.name} must be local (got {source.path!r}); use another offline store")
    return repo_path / path


def partition_root(path: Path) -> Path:
    """Folder below which the folders of a source are partitions."""
    while any(mark in str(path) for mark in "*?["):
        path = path.parent
    return path


def parquet_files(path: Path) -> Iterator[Path]:
    """Files of a folder and its folders, of a glob, or the one file, in name order.

    Hidden ones are not meant, nor those whose rows a merged file beside them has.
    """
    if path.is_dir():
        # Read before files are listed: a merge that comes in between shows its rows twice, not never.
        gone, _ = superseded(path)
        found = (file for file in path.rglob("*.parquet") if not _is_hidden(file.relative_to(path)))
        yield from sorted(file for file in found if file.name not in gone or file.parent != path)
    elif path.is_file():
        yield path
    elif any(mark in str(path) for mark in "*?["):
        root = partition_root(path)
        found = root.glob(str(path.relative_to(root)))
        yield from sorted(file for file in found if file.is_file() and not _is_hidden(file.relative_to(root)))


def superseded(folder: Path) -> tuple[frozenset[str], str]:
    """Names of files whose rows a merged file in the same folder has, and the name of that merge."""
    try:
        told = json.loads((folder / SUPERSEDED_FILE).read_text())
    except FileNotFoundError:
        return frozenset(), ""
    return frozenset(told["files"]), str(told["by"])


def partition_values(path: Path, root: Path) -> dict[str, str | None]:
    """Name and value of every `name=value` folder between `root` and a file."""
    if not path.is_relative_to(root):
        return {}
    pairs = (folder.partition("=") for folder in path.relative_to(root).parts[:-1] if "=" in folder)
    return {name: None if value == _NULL_PARTITION else unquote(value) for name, _, value in pairs}


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) and "=" not in part for part in path.parts)
