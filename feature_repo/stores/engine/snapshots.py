"""The newest rows of a view straight from its parquet files: keys and times first, then a stream of the chosen rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from feast import FeatureView

from feature_repo.contract import EVENT_TIMESTAMP
from feature_repo.stores.engine.rows import Layout, digest, with_entityless_key
from feature_repo.stores.offline.arrow_types import always_casts
from feature_repo.stores.offline.asof_join import Engine, EngineMemoryError, latest, unix_microseconds
from feature_repo.stores.offline.footers import in_window, read_footer
from feature_repo.stores.offline.pages import rechunk, select_rows
from feature_repo.stores.offline.snapshots import (
    REFERENCE_SHIFT,
    References,
    SnapshotError,
    Snapshots,
    find_files,
    local_source,
    partition_root,
    source_path,
)


class SnapshotRows:
    """Newest row of each key in [start, end], in the order of files and of rows in them.

    Only references to rows are held, 8 bytes a row; pages of the files are read one after the other.

    Raises:
        MissingSnapshotsError: The view has no file.
        SnapshotError: A file is damaged or lacks a column.
    """

    def __init__(
        self, view: FeatureView, layout: Layout, repo: Path, engine: Engine, start: datetime, end: datetime
    ) -> None:
        label = f"feature view {view.name}"
        source = local_source(view.batch_source, label)
        self._layout = layout
        self._snapshots = Snapshots(
            label=label,
            files=find_files(source, repo, label),
            timestamp_field=layout.timestamp_column,
            created_field=layout.created_column,
            root=partition_root(source_path(source, repo)),
        )
        self._stamp = _stamp(self._snapshots)
        self._check_times(start, end)
        self._references = _choose(self._snapshots, layout, engine, start, end)
        self._check_files()
        newest = read_footer(self._snapshots.files[-1], label).schema
        self._columns = layout.typed(newest)

    @property
    def num_rows(self) -> int:
        """Number of keys."""
        return len(self._references)

    @property
    def fingerprint(self) -> str:
        """Of the chosen rows, the view's columns, and the names, sizes and times of the files.

        The interval is not in it: `materialize-incremental` computes its start from the clock, and a run of it that is
        taken up later is still the same one when it chooses the same rows.
        """
        return digest(self._layout.describe(), self._stamp, self._references.tobytes())

    @property
    def doubtful(self) -> list[str]:
        """Columns that a file with a chosen row has in a type of which not every value fits."""
        found = []
        for index in self._chosen_files():
            schema = read_footer(self._snapshots.files[index], self._snapshots.label).schema
            stored = {column: schema.field(column).type for column in self._columns if column in schema.names}
            found += [column for column, kind in stored.items() if not always_casts(kind, self._columns[column].type)]
        return [self._columns[column].name for column in dict.fromkeys(found)]

    def check_unchanged(self) -> None:
        """See that no file changed since the rows were chosen.

        Raises:
            SnapshotError: One did.
        """
        if _stamp(self._snapshots) != self._stamp:
            raise SnapshotError(
                f"files of {self._snapshots.label} must stay as they are while it is materialized "
                f"(got other ones under {self._snapshots.files[0].parent}); run again"
            )

    def tables(self, names: Sequence[str], start: int, chunk_rows: int) -> Iterator[pa.Table]:
        """Columns `names` of the rows from `start` on."""
        # The key of an entity-less view alone would leave no column to count rows by.
        wanted = [*names, EVENT_TIMESTAMP]
        columns = {column: field for column, field in self._columns.items() if field.name in wanted}
        pages = select_rows(self._snapshots, self._references[start:], columns)
        for table in rechunk(pages, chunk_rows):
            yield with_entityless_key(table, self._layout, names)

    def _chosen_files(self) -> list[int]:
        """Indices of the files with a chosen row."""
        chosen: list[int] = np.unique(self._references >> REFERENCE_SHIFT).tolist()
        return chosen

    def _check_times(self, start: datetime, end: datetime) -> None:
        """See that no row lacks its time, by the footers: it would be left out without a word."""
        bounds = unix_microseconds(start), unix_microseconds(end)
        for index in in_window(self._snapshots, *bounds):
            path = self._snapshots.files[index]
            num_nulls = read_footer(path, self._snapshots.label).num_nulls(self._layout.timestamp_column)
            if num_nulls:
                raise SnapshotError(
                    f"{self._snapshots.label}: {path} must have {self._layout.timestamp_column} in every row "
                    f"(got {num_nulls} nulls); rebuild that snapshot"
                )

    def _check_files(self) -> None:
        """See that the files with a chosen row have every column, whatever part of them is read first."""
        for index in self._chosen_files():
            path = self._snapshots.files[index]
            held = {*read_footer(path, self._snapshots.label).schema.names, *self._snapshots.partition(index)}
            absent = sorted(set(self._layout.columns) - held)
            if absent:
                raise SnapshotError(
                    f"{self._snapshots.label}: {path} must hold the declared columns (lacks {absent}); "
                    "rebuild that snapshot"
                )


def _choose(snapshots: Snapshots, layout: Layout, engine: Engine, start: datetime, end: datetime) -> References:
    try:
        with engine.connect() as connection:
            return latest(connection, snapshots, layout.source_keys, start, end)
    except EngineMemoryError as error:
        raise EngineMemoryError(
            f"batch_engine.memory_limit must hold the keys and times of {snapshots.label} (got {engine.memory_limit}: "
            f"{error.__cause__}); raise it, or make more room in offline_store.temp_directory"
        ) from error
    except duckdb.Error as error:
        raise SnapshotError(
            f"{snapshots.label} must have readable files under {snapshots.files[0].parent} (got: {error}); "
            "rebuild the file that is named"
        ) from error


def _stamp(snapshots: Snapshots) -> str:
    stats = [(path, path.stat()) for path in snapshots.files if path.exists()]
    root = snapshots.files[0].parent
    names = [path.relative_to(root) if path.is_relative_to(root) else path for path, _ in stats]
    parts = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, (_, stat) in zip(names, stats, strict=True)]
    return "\n".join(parts)
