"""Training frames: entity rows joined point in time to the features of a service, as Arrow.

Dims: N rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from feature_repo.contract import ENTITIES, EVENT_TIMESTAMP, join_key
from feature_repo.layout import open_store

if TYPE_CHECKING:
    from feast import FeatureStore

CHUNK_ROWS = 500_000
"""Rows that are joined at once: bounds the memory of a query, whatever the length of the frame."""


def point_in_time_frame(
    repo: Path | FeatureStore, rows: pa.Table, service: str, *, chunk_rows: int = CHUNK_ROWS
) -> pa.Table:
    """The rows in their order, with a `view__feature` column for every feature of the service.

    A feature is the newest value that could be used at the row's event_timestamp, and null when there was none or it
    was outside max age. Label columns pass through untouched.

    Args:
        repo: Feature repo, or its open Feast store.
        rows: `user_id`, `pin_id` or both as the service needs, `event_timestamp` with a time zone, any other columns.

    Returns:
        Table of N rows.

    Raises:
        ValueError: The rows lack a column, their times are naive, or `chunk_rows` is not positive.
    """
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1 (got {chunk_rows})")
    keys = [name for name in (*map(join_key, ENTITIES), EVENT_TIMESTAMP) if name in rows.column_names]
    if EVENT_TIMESTAMP not in keys:
        raise ValueError(f"rows must have {EVENT_TIMESTAMP} (got columns {rows.column_names})")
    store = open_store(repo) if isinstance(repo, Path) else repo
    starts = range(0, max(rows.num_rows, 1), chunk_rows)
    parts = [_features(store, rows.select(keys).slice(start, chunk_rows), service) for start in starts]
    features = pa.concat_tables(parts)
    for field in features.schema:
        rows = rows.append_column(field, features[field.name])
    return rows


def _features(store: FeatureStore, keys: pa.Table, service: str) -> pa.Table:
    # Only keys and times pass through pandas, which Feast's API asks for; features stay Arrow.
    entity_df = keys.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    job = store.get_historical_features(entity_df, store.get_feature_service(service), full_feature_names=True)
    return job.to_arrow().drop_columns(keys.column_names)
