"""Where the snapshots of a feature view lie, relative to the feature repo, and what pushes single rows to it."""

from __future__ import annotations

from feast import FileSource, PushSource
from feast.data_format import ParquetFormat

from feature_repo.contract import CREATED_TIMESTAMP, EVENT_TIMESTAMP, snapshot_folder


def snapshot_source(view: str) -> FileSource:
    """Source of a view.

    The path is the folder, not a `*.parquet` glob: Feast's schema inference, its Dask and Spark stores and DuckDB all
    read a folder, while pyarrow, which Feast uses for schemas, does not expand globs.
    """
    return FileSource(
        name=f"{view}_source",
        path=snapshot_folder(view),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
        description=f"Daily snapshots of {view}.",
    )


def push_source_name(view: str) -> str:
    """Name under which rows are pushed to a view: `store.push("pin_embedding_ctr_v1_push", rows, …)`."""
    return f"{view}_push"


def pushed_source(view: str) -> PushSource:
    """Source of a view whose single rows may be refreshed between two snapshots.

    Its batch source is the snapshots': joins and materialization read those, and pushed rows as one more file of them.
    """
    return PushSource(
        name=push_source_name(view),
        batch_source=snapshot_source(view),
        description=f"Single rows of {view}, usable from their event_timestamp on.",
    )
