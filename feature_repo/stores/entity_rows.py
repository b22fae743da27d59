"""Entity rows of a historical retrieval: keys and times checked, times as Unix microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from feature_repo.stores.asof_join import Engine, microseconds
from feature_repo.stores.snapshots import References

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityRows:
    """Rows to which features are joined."""

    table: pa.Table
    """The rows as they were given, in their order."""
    time_column: str
    times: References
    """Unix microseconds of each row's time."""

    def require(self, columns: Sequence[str], view: str) -> None:
        """Check that the join keys of a view are there.

        Raises:
            ValueError: One is missing.
        """
        absent = [name for name in columns if name not in self.table.column_names]
        if absent:
            given = self.table.column_names
            raise ValueError(f"entity rows must have {absent}, the join key of {view} (got columns {given})")

    def other_columns(self) -> list[str]:
        """Names of the columns apart from the time."""
        return [name for name in self.table.column_names if name != self.time_column]

    def range(self) -> tuple[datetime | None, datetime | None]:
        """Earliest and latest time; none without rows."""
        if not len(self.times):
            return None, None
        first, last = (_EPOCH + timedelta(microseconds=int(value)) for value in (self.times.min(), self.times.max()))
        return first, last


def read_entity_rows(entity_df: pd.DataFrame | str, engine: Engine) -> EntityRows:
    """Entity rows from a data frame, or from a query that DuckDB runs.

    Raises:
        ValueError: Times are naive, null or no timestamps.
    """
    if isinstance(entity_df, str):
        with engine.connect() as connection:
            table = connection.sql(entity_df).to_arrow_table()
    else:
        table = pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)
    column = _time_column(table)
    _check_times(table[column], column)
    return EntityRows(table=table, time_column=column, times=microseconds(table[column]))


def _time_column(table: pa.Table) -> str:
    dtypes = {field.name: field.type.to_pandas_dtype() for field in table.schema if pa.types.is_timestamp(field.type)}
    others = {name: object for name in table.column_names if name not in dtypes}
    return str(infer_event_timestamp_from_entity_df({**others, **dtypes}))


def _check_times(times: pa.ChunkedArray, name: str) -> None:
    if not pa.types.is_timestamp(times.type) or times.type.tz is None:
        raise ValueError(
            f"{name} of entity rows must be timestamps with a time zone (got {times.type}); "
            f"use pandas.to_datetime({name}, utc=True) if they are UTC"
        )
    if times.null_count:
        raise ValueError(f"{name} of entity rows must not be null (got {times.null_count} nulls); drop those rows")
