"""What a request wants of a feature view, in the names that its files have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView

from feature_repo.stores.engine.checks import vector_widths
from feature_repo.stores.offline.arrow_types import declared_type, plain_type
from feature_repo.stores.offline.asof_join import AsofQuery
from feature_repo.stores.offline.block_join import ViewJoin
from feature_repo.stores.offline.entity_rows import EntityRows
from feature_repo.stores.offline.footers import read_footer
from feature_repo.stores.offline.snapshots import (
    SnapshotError,
    Snapshots,
    find_files,
    local_source,
    partition_root,
    source_path,
)


def view_join(
    view: FeatureView,
    feature_refs: Sequence[str],
    rows: EntityRows,
    repo: Path,
    full_feature_names: bool,
    known_at_the_time: bool,
) -> ViewJoin:
    """Files, keys, TTL and features of a view, under its alias and with its join key map.

    Raises:
        ValueError: The entity rows lack a join key, or the view lacks a feature, or its source is no local parquet.
        MissingSnapshotsError: The view has no snapshot yet.
        SnapshotError: The newest file is damaged or lacks a feature whose type the view does not declare.
    """
    snapshots = _snapshots(view, repo)
    in_file = _names_in_file(view)
    # A map may name some of the keys only; the others keep their names.
    keys = {key.name: view.projection.join_key_map.get(key.name, key.name) for key in view.entity_columns}
    if DUMMY_ENTITY_ID not in rows.schema.names:
        keys = {key: column for key, column in keys.items() if column != DUMMY_ENTITY_ID}
    rows.require(list(keys.values()), view.name)
    shown = view.projection.name_alias or view.name
    types = {field.name: declared_type(field.dtype) for field in view.features}
    columns = {}
    for name in _wanted(view, feature_refs):
        stored = in_file.get(name, name)
        kind = types[name] or _stored_type(snapshots, stored)
        columns[stored] = pa.field(f"{shown}__{name}" if full_feature_names else name, kind)
    query = AsofQuery(
        snapshots=snapshots,
        keys={in_file.get(key, key): column for key, column in keys.items()},
        ttl=view.ttl or timedelta(),
        known_at_the_time=known_at_the_time and bool(snapshots.created_field),
    )
    widths = {in_file.get(name, name): width for name, width in vector_widths(view).items()}
    return ViewJoin(query=query, columns=columns, widths=widths)


def required_columns(view: FeatureView) -> list[str]:
    """Join keys and event_timestamp of a view as its files name them."""
    in_file = _names_in_file(view)
    names = [key.name for key in view.entity_columns if key.name != DUMMY_ENTITY_ID]
    return [in_file.get(name, name) for name in (*names, view.batch_source.timestamp_field)]


def _snapshots(view: FeatureView, repo: Path) -> Snapshots:
    label = f"feature view {view.name}"
    source = local_source(view.batch_source, label)
    in_file = _names_in_file(view)
    return Snapshots(
        label=label,
        files=find_files(source, repo, label),
        timestamp_field=in_file.get(source.timestamp_field, source.timestamp_field),
        created_field=in_file.get(source.created_timestamp_column, source.created_timestamp_column),
        root=partition_root(source_path(source, repo)),
    )


def _names_in_file(view: FeatureView) -> dict[str, str]:
    return {feature: column for column, feature in view.batch_source.field_mapping.items()}


def _wanted(view: FeatureView, feature_refs: Sequence[str]) -> list[str]:
    prefix = f"{view.projection.name_to_use()}:"
    wanted = [reference.removeprefix(prefix) for reference in feature_refs if reference.startswith(prefix)]
    known = [field.name for field in view.features]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"feature view {view.name} must have the features asked for (got {unknown}, has {known})")
    return list(dict.fromkeys(wanted))


def _stored_type(snapshots: Snapshots, name: str) -> pa.DataType:
    path = snapshots.files[-1]
    schema = read_footer(path, snapshots.label).schema
    if name not in schema.names:
        raise SnapshotError(
            f"{snapshots.label}: {path} must hold the declared columns (lacks [{name!r}]); rebuild that snapshot"
        )
    return plain_type(schema.field(name).type)
