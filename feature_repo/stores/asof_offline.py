"""Feast offline store over local parquet snapshots: narrow `ASOF` joins, then a gather of the matched rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.types import from_feast_to_pyarrow_type
from pydantic import StrictInt, StrictStr

from feature_repo.stores.asof_join import NO_MATCH, AsofQuery, Engine, all_between, latest, match
from feature_repo.stores.entity_rows import EntityRows, read_entity_rows
from feature_repo.stores.snapshots import (
    References,
    Snapshots,
    append_file,
    find_files,
    source_path,
    take_rows,
    write_file,
)


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """`offline_store` section of feature_store.yaml."""

    type: StrictStr = "feature_repo.stores.asof_offline.AsofOfflineStore"
    memory_limit: StrictStr | None = None
    """Memory that DuckDB may use, such as `4GB`."""
    threads: StrictInt | None = None
    """Threads that DuckDB may use."""
    temp_directory: StrictStr | None = None
    """Where DuckDB spills."""


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A query that runs when its result is asked for; Feast adds on-demand transformations to it."""

    def __init__(
        self,
        query: Callable[[], pa.Table],
        config: RepoConfig,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._query = query
        self._config = config
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Feature references, keys and time range of the entity rows."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return self._query()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002
        frame: pd.DataFrame = self._query().to_pandas()
        return frame

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result, on-demand features included, as the one file of a saved dataset.

        Raises:
            SavedDatasetLocationAlreadyExists: There is one, and `allow_overwrite` is false.
        """
        path = source_path(storage.to_data_source(), _repo(self._config))
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        write_file(path, self.to_arrow(timeout=timeout))


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Reads parquet snapshots point in time; everything it does not override is Feast's DuckDB store."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **bounds: Any,
    ) -> RetrievalJob:
        """Entity rows in their order, each with the features that could be used at its time.

        Raises:
            ValueError: The entity rows have naive times, null times or no join key of a view.
            MissingSnapshotsError: A view has no snapshot yet.
        """
        if entity_df is None:
            raise ValueError(f"entity_df must be given (got none, with {bounds}); this store joins entity rows only")
        engine = _engine(config)
        rows = read_entity_rows(entity_df, engine)
        plans = [
            _plan(config, view, feature_refs, rows, full_feature_names, filter_by_created_timestamp)
            for view in feature_views
        ]
        return AsofRetrievalJob(
            lambda: _join(engine, plans, rows),
            config,
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
        """Add rows to a view as one more file of its folder, whole or not at all.

        Raises:
            ValueError: The source is no local folder, or the rows lack a column.
        """
        append_file(feature_view.batch_source, _repo(config), table, feature_view.name)
        if progress:
            progress(table.num_rows)

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
    ) -> RetrievalJob:
        """Each entity's newest row in [start, end]; ties go to the newest created_timestamp."""
        engine = _engine(config)

        def query() -> pa.Table:
            snapshots = _snapshots(config, data_source, timestamp_field, created_timestamp_column)
            with engine.connect() as connection:
                chosen = latest(connection, snapshots, join_key_columns, start_date, end_date)
            return _source_rows(snapshots, chosen, [*join_key_columns, *feature_name_columns])

        return AsofRetrievalJob(query, config)

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
    ) -> RetrievalJob:
        """Every row in [start, end]."""
        engine = _engine(config)

        def query() -> pa.Table:
            snapshots = _snapshots(config, data_source, timestamp_field, created_timestamp_column)
            with engine.connect() as connection:
                chosen = all_between(connection, snapshots, start_date, end_date)
            return _source_rows(snapshots, chosen, [*join_key_columns, *feature_name_columns])

        return AsofRetrievalJob(query, config)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    query: AsofQuery
    columns: dict[str, pa.Field]
    """Column in the files to the field of the result."""


def _plan(
    config: RepoConfig,
    view: FeatureView,
    feature_refs: Sequence[str],
    rows: EntityRows,
    full_feature_names: bool,
    known_at_the_time: bool,
) -> _Plan:
    in_file = {feature: column for column, feature in view.batch_source.field_mapping.items()}
    keys = view.projection.join_key_map or {key.name: key.name for key in view.entity_columns}
    rows.require(list(keys.values()), view.name)
    prefix = f"{view.projection.name_to_use()}:"
    wanted = [reference.removeprefix(prefix) for reference in feature_refs if reference.startswith(prefix)]
    types = {field.name: from_feast_to_pyarrow_type(field.dtype) for field in view.features}
    shown = view.projection.name_alias or view.name
    columns = {
        in_file.get(name, name): pa.field(f"{shown}__{name}" if full_feature_names else name, types[name])
        for name in wanted
    }
    label = f"feature view {view.name}"
    snapshots = Snapshots(
        label=label,
        files=find_files(view.batch_source, _repo(config), label),
        timestamp_field=view.batch_source.timestamp_field,
        created_field=view.batch_source.created_timestamp_column,
    )
    query = AsofQuery(
        snapshots=snapshots,
        keys={in_file.get(key, key): column for key, column in keys.items()},
        ttl=view.ttl,
        known_at_the_time=known_at_the_time and bool(snapshots.created_field),
    )
    return _Plan(query=query, columns=columns)


def _join(engine: Engine, plans: Sequence[_Plan], rows: EntityRows) -> pa.Table:
    with engine.connect() as connection:
        matches = [match(connection, plan.query, rows.table, rows.times) for plan in plans]
    result = rows.table
    for plan, matched in zip(plans, matches, strict=True):
        features = _gather(plan, matched)
        for field in features.schema:
            result = result.append_column(field, features[field.name])
    return result


def _gather(plan: _Plan, matched: References) -> pa.Table:
    """Features of the matched rows, each read once however many entity rows see it; null where nothing matched."""
    references, position = np.unique(matched, return_inverse=True)
    num_unmatched = int(np.count_nonzero(references == NO_MATCH))
    found = take_rows(plan.query.snapshots, references[num_unmatched:], plan.columns)
    indices = pa.array(position - num_unmatched, mask=matched == NO_MATCH)
    return found.take(indices)


def _source_rows(snapshots: Snapshots, chosen: References, names: Sequence[str]) -> pa.Table:
    """Rows as they are in the files, with their timestamps in microseconds."""
    moment = pa.timestamp("us", tz="UTC")
    schema = pq.read_schema(snapshots.files[-1])
    times = [name for name in (snapshots.timestamp_field, snapshots.created_field) if name]
    columns = {name: pa.field(name, schema.field(name).type) for name in names}
    columns |= {name: pa.field(name, moment) for name in times}
    return take_rows(snapshots, chosen, columns)


def _engine(config: RepoConfig) -> Engine:
    options = config.offline_store
    folder = None if options.temp_directory is None else _repo(config) / options.temp_directory
    return Engine(memory_limit=options.memory_limit, threads=options.threads, temp_directory=folder)


def _repo(config: RepoConfig) -> Path:
    return Path(config.repo_path) if config.repo_path is not None else Path.cwd()


def _snapshots(config: RepoConfig, source: DataSource, timestamp_field: str, created_field: str | None) -> Snapshots:
    label = f"source of {source.name.removesuffix('_source')}"
    files = find_files(source, _repo(config), label)
    return Snapshots(label=label, files=files, timestamp_field=timestamp_field, created_field=created_field or "")
