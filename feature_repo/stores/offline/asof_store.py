"""Feast offline store over local parquet snapshots: narrow `ASOF` joins, then a gather of the matched rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from feast import FileSource
from feast.data_source import DataSource
from feast.feature_logging import LOG_DATE_FIELD, LoggingConfig, LoggingSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from pydantic import AfterValidator, Field, StrictInt, StrictStr

from feature_repo.stores.engine.checks import check_rows, vector_widths
from feature_repo.stores.offline.asof_join import Engine
from feature_repo.stores.offline.block_join import Join
from feature_repo.stores.offline.entity_rows import EntityFrame, read_entity_rows
from feature_repo.stores.offline.job import AsofRetrievalJob
from feature_repo.stores.offline.logs import write_logs
from feature_repo.stores.offline.pull import Pull
from feature_repo.stores.offline.requested_views import required_columns, view_join
from feature_repo.stores.offline.snapshots import Snapshots, find_files, local_source, partition_root, source_path
from feature_repo.stores.offline.write import append_rows

_MEGABYTE = 1 << 20


def _checked_size(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?\s*(B|[KMGT]i?B|%)", text.strip(), re.IGNORECASE):
        raise ValueError(f"must be a size such as 512MB, 4GB or 1.5GiB (got {text!r})")
    return text


Size = Annotated[StrictStr, AfterValidator(_checked_size)]


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """`offline_store` section of feature_store.yaml."""

    type: StrictStr = "feature_repo.stores.offline.asof_store.AsofOfflineStore"
    memory_limit: Size | None = None
    """Memory that DuckDB may use for keys and times, such as `4GB`; its default is 80 % of the machine."""
    threads: Annotated[StrictInt, Field(ge=1)] | None = None
    """Threads that DuckDB may use; its default is one per core."""
    temp_directory: StrictStr | None = None
    """Folder where DuckDB spills, relative to the feature repo; the system's when none is given."""
    max_temp_directory_size: Size | None = None
    """Disk space that DuckDB may spill; its default is 90 % of what is free."""
    block_mb: Annotated[StrictInt, Field(ge=1, le=4096)] = 128
    """Memory of the features of one block of a stream, in MiB; two or three blocks are alive at a time."""
    cache_mb: Annotated[StrictInt, Field(ge=0)] = 512
    """Memory for decoded features that one block of a stream leaves for the next, in MiB."""


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Reads parquet snapshots point in time; everything it does not override is Feast's DuckDB store."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: EntityFrame | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **bounds: Any,
    ) -> AsofRetrievalJob:
        """Entity rows in their order, each with the features that could be used at its time.

        Args:
            entity_df: pandas or Arrow table, a query that DuckDB runs, or a path of parquet files.
            filter_by_created_timestamp: Whether rows written after the entity row's time are left out too.

        Raises:
            ValueError: The entity rows have naive times, null times, no join key of a view or one of another type.
            MissingSnapshotsError: A view has no snapshot yet.
            SnapshotError: A file is damaged or lacks a key or a time.
        """
        if entity_df is None:
            raise ValueError(f"entity_df must be given (got none, with {bounds}); this store joins entity rows only")
        engine, repo = engine_of(config), _repo(config)
        rows = read_entity_rows(entity_df, engine)
        views = [
            view_join(view, feature_refs, rows, repo, full_feature_names, filter_by_created_timestamp)
            for view in feature_views
        ]
        return AsofRetrievalJob(
            Join(engine=engine, rows=rows, views=views, cache_bytes=config.offline_store.cache_mb * _MEGABYTE),
            repo,
            config.offline_store.block_mb * _MEGABYTE,
            full_feature_names,
            OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            RetrievalMetadata(feature_refs, rows.other_columns(), *rows.range()),
        )

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check a source that has snapshots; one without may be applied, they come later."""
        is_awaited = isinstance(data_source, FileSource) and not source_path(data_source, _repo(config)).exists()
        if not is_awaited:
            super().validate_data_source(config, data_source)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to a view, whole or not at all: as one more file of its folder, or by rewriting its one file.

        Raises:
            ValueError: The source is no local folder or file, or columns, types or values are not those of the source.
            InvalidRowsError: A vector is null, of another width or not finite: no materialization would take it.
            OSError: The disk is full or the folder cannot be written; nothing was added.
        """
        _check_vectors(feature_view, table)
        source = local_source(feature_view.batch_source, f"feature view {feature_view.name}")
        append_rows(source, _repo(config), table, feature_view.name, required_columns(feature_view))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004
    ) -> None:
        """Add logs to the folder of their destination, each file in one step.

        Raises:
            ValueError: The destination is no local folder.
            OSError: The disk is full or the folder cannot be written; nothing was added.
        """
        write_logs(data, logging_config, _repo(config))

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> AsofRetrievalJob:
        """Each entity's newest row in [start, end], in the order of the files; ties go to the newest created_timestamp.

        Raises:
            ValueError: The source is not a local parquet `FileSource`.
            MissingSnapshotsError: It has no snapshot yet.
        """
        names = [*join_key_columns, *feature_name_columns]
        snapshots = _snapshots(config, data_source, timestamp_field, created_timestamp_column)
        return _pull_job(config, snapshots, names, start_date, end_date, join_key_columns)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> AsofRetrievalJob:
        """Every row in [start, end], in the order of the files.

        Raises:
            ValueError: The source is not a local parquet `FileSource`.
            MissingSnapshotsError: It has no snapshot yet.
        """
        names = [*join_key_columns, *feature_name_columns]
        snapshots = _snapshots(config, data_source, timestamp_field, created_timestamp_column)
        return _pull_job(config, snapshots, names, start_date, end_date, None)


def _check_vectors(view: FeatureView, table: pa.Table) -> None:
    """Refuse vectors that would stop the next materialization; what is no list at all is told with the types."""
    keys, vectors = [key.name for key in view.entity_columns], list(vector_widths(view))
    has_all = bool(vectors) and {*keys, *vectors} <= set(table.column_names)
    if has_all and all(_is_list(table[name].type) for name in vectors):
        check_rows(view, keys, table, remedy="correct it; nothing of the table was written")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _pull_job(
    config: RepoConfig,
    snapshots: Snapshots,
    names: Sequence[str],
    start: datetime | None,
    end: datetime | None,
    keys: Sequence[str] | None,
) -> AsofRetrievalJob:
    # Logs are partitioned by their date, which is no feature.
    names = [name for name in dict.fromkeys(names) if name != LOG_DATE_FIELD]
    pull = Pull(engine=engine_of(config), snapshots=snapshots, names=names, start=start, end=end, keys=keys)
    return AsofRetrievalJob(pull, _repo(config), config.offline_store.block_mb * _MEGABYTE)


def engine_of(config: RepoConfig) -> Engine:
    """Limits of the configuration for a DuckDB connection.

    Raises:
        ValueError: `temp_directory` is no folder.
    """
    options = config.offline_store
    folder = None if options.temp_directory is None else _repo(config) / options.temp_directory
    if folder is not None and not folder.is_dir():
        raise ValueError(f"offline_store.temp_directory must be a folder (got {folder}); make it, or leave the key out")
    return Engine(
        memory_limit=options.memory_limit,
        threads=options.threads,
        temp_directory=folder,
        max_temp_directory_size=options.max_temp_directory_size,
    )


def _repo(config: RepoConfig) -> Path:
    return Path(config.repo_path) if config.repo_path is not None else Path.cwd()


def _snapshots(config: RepoConfig, source: DataSource, timestamp_field: str, created_field: str | None) -> Snapshots:
    label = f"source of {source.name.removesuffix('_source')}"
    return Snapshots(
        label=label,
        files=find_files(source, _repo(config), label),
        timestamp_field=timestamp_field,
        created_field=created_field or "",
        root=partition_root(source_path(local_source(source, label), _repo(config))),
    )
