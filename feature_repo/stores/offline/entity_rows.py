"""Entity rows of a historical retrieval: a data frame, an Arrow table, a query, or parquet files larger than memory."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from feature_repo.stores.offline.abandoned import HeldFolder
from feature_repo.stores.offline.asof_join import Engine, microseconds
from feature_repo.stores.offline.footers import naming, read_footer
from feature_repo.stores.offline.pages import rechunk
from feature_repo.stores.offline.scan import literal
from feature_repo.stores.offline.snapshots import References, SnapshotError, parquet_files

EntityFrame: TypeAlias = pd.DataFrame | pa.Table | pa.RecordBatch | str | Path
"""What `get_historical_features` takes as `entity_df`; a string is a path if it names parquet files, else a query."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LABEL = "entity rows"


class EntityRows(ABC):
    """Rows to which features are joined, read block by block in their order.

    Raises:
        ValueError: Times are naive, null or no timestamps.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema.remove_metadata()
        self.time_column = _time_column(self.schema)
        _check_time_type(self.schema.field(self.time_column))
        self.num_rows, self._span = self._measure()

    def require(self, columns: Sequence[str], view: str) -> None:
        """Check that the join keys of a view are there.

        Raises:
            ValueError: One is missing.
        """
        absent = [name for name in columns if name not in self.schema.names]
        if absent:
            raise ValueError(
                f"entity rows must have {absent}, the join key of {view} (got columns {self.schema.names}); "
                f"add it, or rename a column"
            )

    def other_columns(self) -> list[str]:
        """Names of the columns apart from the time."""
        return [name for name in self.schema.names if name != self.time_column]

    def window(self) -> tuple[int, int]:
        """First and last time, Unix microseconds; of no rows, an empty window."""
        return self._span or (0, -1)

    def range(self) -> tuple[datetime | None, datetime | None]:
        """Earliest and latest time; none without rows."""
        if self._span is None:
            return None, None
        first, last = (_EPOCH + timedelta(microseconds=value) for value in self._span)
        return first, last

    def times(self, block: pa.Table) -> References:
        """Unix microseconds of each row of a block."""
        return microseconds(block[self.time_column])

    @abstractmethod
    def blocks(self, num_rows: int, first_row: int = 0) -> Iterator[pa.Table]:
        """The rows from `first_row` on in tables of `num_rows`, but for the last; one empty table if there are none."""

    @abstractmethod
    def _times(self) -> Iterator[pa.ChunkedArray]:
        """Times of all rows, piece by piece."""

    def _measure(self) -> tuple[int, tuple[int, int] | None]:
        num_rows, num_nulls, spans = 0, 0, []
        for moments in self._times():
            num_rows += len(moments)
            num_nulls += moments.null_count
            if len(moments) and not num_nulls:
                values = microseconds(moments)
                spans.append((int(values.min()), int(values.max())))
        if num_nulls:
            raise ValueError(
                f"{self.time_column} of entity rows must not be null (got {num_nulls} nulls); drop those rows"
            )
        span = (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None
        return num_rows, span


class TableRows(EntityRows):
    """Entity rows in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.replace_schema_metadata(None)
        super().__init__(table.schema)

    def blocks(self, num_rows: int, first_row: int = 0) -> Iterator[pa.Table]:
        """The rows from `first_row` on in tables of `num_rows`, but for the last; one empty table if there are none."""
        for start in range(first_row, max(self.num_rows, first_row + 1), num_rows):
            yield self._table.slice(start, num_rows)

    def _times(self) -> Iterator[pa.ChunkedArray]:
        yield self._table[self.time_column]


class ParquetRows(EntityRows):
    """Entity rows in files, never all in memory.

    Raises:
        SnapshotError: A file is damaged, or its columns are not those of the first.
    """

    def __init__(self, files: Sequence[Path], folder: HeldFolder | None = None) -> None:
        self._files = files
        self._folder = folder
        """Kept, and so on disk, as long as these rows are."""
        super().__init__(read_footer(files[0], _LABEL).schema)
        for path in files[1:]:
            held = read_footer(path, _LABEL).schema.remove_metadata()
            if not held.equals(self.schema):
                raise SnapshotError(f"{_LABEL}: {path} must have the columns of {files[0]}, {self.schema} (got {held})")

    def blocks(self, num_rows: int, first_row: int = 0) -> Iterator[pa.Table]:
        """The rows from `first_row` on in tables of `num_rows`, but for the last; one empty table if there are none."""
        is_empty = True
        for block in rechunk(self._batches(self.schema.names, first_row), num_rows):
            is_empty = False
            yield block
        if is_empty:
            yield self.schema.empty_table()

    def _times(self) -> Iterator[pa.ChunkedArray]:
        for table in self._batches([self.time_column]):
            yield table[self.time_column]

    def _batches(self, columns: list[str], first_row: int = 0) -> Iterator[pa.Table]:
        skipped = 0
        for path in self._files:
            with naming(path, _LABEL), pq.ParquetFile(path, buffer_size=1 << 20) as file:
                for group in range(file.num_row_groups):
                    num_rows = file.metadata.row_group(group).num_rows
                    if skipped + num_rows <= first_row:
                        skipped += num_rows
                        continue
                    for batch in file.iter_batches(1 << 17, row_groups=[group], columns=columns):
                        start = min(first_row - skipped, batch.num_rows)
                        skipped += start
                        if start < batch.num_rows:
                            kept = pa.Table.from_batches([batch.slice(start)])
                            yield kept.replace_schema_metadata(None)


def read_entity_rows(entity_df: EntityFrame, engine: Engine) -> EntityRows:
    """Entity rows of any kind; a query runs once, into a file that lives as long as the rows do.

    Raises:
        ValueError: They are of no such kind, or times are naive, null or no timestamps.
    """
    if isinstance(entity_df, pa.Table):
        return TableRows(entity_df)
    if isinstance(entity_df, pa.RecordBatch):
        return TableRows(pa.Table.from_batches([entity_df]))
    if isinstance(entity_df, pd.DataFrame):
        return TableRows(_from_pandas(entity_df))
    if isinstance(entity_df, Path) or (isinstance(entity_df, str) and _is_path(entity_df)):
        return _from_files(Path(entity_df))
    if isinstance(entity_df, str):
        return _from_query(entity_df, engine)
    kind = type(entity_df).__name__
    raise ValueError(f"entity_df must be a pandas or Arrow table, a query or a path of parquet files (got {kind})")


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"each column of the entity rows must hold values of one type (got: {error})") from error


def _is_path(text: str) -> bool:
    """A query has a space after its first word; so may a path, but it ends as parquet files do, or is there."""
    is_query = text.lower().lstrip().startswith(("select ", "from ", "with "))
    return not is_query and (text.endswith(".parquet") or (len(text.split()) == 1 and Path(text).exists()))


def _from_files(path: Path) -> EntityRows:
    files = tuple(parquet_files(path))
    if not files:
        raise FileNotFoundError(f"entity_df must name parquet files (got none at {path.absolute()})")
    return ParquetRows(files)


def _from_query(sql: str, engine: Engine) -> EntityRows:
    folder = HeldFolder("headwater-entities-", engine.temp_directory)
    path = Path(folder.name) / "rows.parquet"
    try:
        with engine.connect() as connection:
            connection.execute(f"COPY ({sql.rstrip().rstrip(';')}) TO {literal(str(path))} (FORMAT parquet)")
    except duckdb.IOException as error:
        folder.cleanup()
        if folder.name not in str(error):
            raise ValueError(f"entity_df must be a query that DuckDB runs, or a path (got {sql!r}: {error})") from error
        reason = f"temp_directory must have room for the result of a query ({error}); free some, or move it"
        raise OSError(errno.ENOSPC, reason, str(path.parent.parent)) from error
    except duckdb.Error as error:
        folder.cleanup()
        raise ValueError(f"entity_df must be a query that DuckDB runs, or a path (got {sql!r}: {error})") from error
    except (MemoryError, OSError):
        folder.cleanup()
        raise
    return ParquetRows([path], folder)


def _time_column(schema: pa.Schema) -> str:
    moment = np.dtype("datetime64[us]")
    kinds = {field.name: moment if pa.types.is_timestamp(field.type) else np.dtype(object) for field in schema}
    if len(kinds) < len(schema.names):
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        raise ValueError(f"entity rows must have each column once (got {repeated} more often)")
    if "event_timestamp" in kinds:
        return "event_timestamp"
    moments = [name for name, kind in kinds.items() if kind == moment]
    if len(moments) != 1:
        raise ValueError(
            f"entity rows must have a column event_timestamp, or just one of timestamps "
            f"(got {moments} among columns {schema.names}); rename it"
        )
    return str(infer_event_timestamp_from_entity_df(kinds))


def _check_time_type(field: pa.Field) -> None:
    if not pa.types.is_timestamp(field.type) or field.type.tz is None:
        raise ValueError(
            f"{field.name} of entity rows must be timestamps with a time zone (got {field.type}); "
            f"use pandas.to_datetime({field.name}, utc=True) if they are UTC"
        )
