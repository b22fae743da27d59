"""Feature views computed from the event log: windowed activity, and long user histories."""

from __future__ import annotations

from feast import FeatureView, Field
from feast.types import Array, FeastType, Float32, Float64, Int64, String

from feature_repo.contract import ENTITIES, RepoManifest, activity_fields, activity_view, history_view, ttl
from feature_repo.entities import BY_NAME, OWNER, join_key_field, tags
from feature_repo.sources import snapshot_source

HISTORY_FIELD = "pin_ids"
"""Pins of a long user history, oldest first."""

_TYPES: dict[str, FeastType] = {
    "int64": Int64,
    "float": Float64,
    "int64_list": Array(Int64),
    "float_list": Array(Float32),
    "string_list": Array(String),
}


def activity_views(manifest: RepoManifest) -> list[FeatureView]:
    """`user_activity` and `pin_activity`."""
    return [_activity(manifest, entity) for entity in ENTITIES]


def history_views(manifest: RepoManifest) -> list[FeatureView]:
    """One view per long user history."""
    return [_history(manifest, name) for name in manifest.histories]


def _activity(manifest: RepoManifest, entity: str) -> FeatureView:
    name = activity_view(entity)
    fields = [Field(name=field, dtype=_TYPES[kind]) for field, kind in activity_fields(manifest, entity).items()]
    return FeatureView(
        name=name,
        entities=[BY_NAME[entity]],
        ttl=ttl(manifest.activity_ttl_hours),
        schema=[join_key_field(entity), *fields],
        source=snapshot_source(name),
        tags=tags(manifest, kind="activity"),
        owner=OWNER,
        description=f"Windowed counts, smoothed rates and recency of a {entity}, strictly before each daily cut-off.",
    )


def _history(manifest: RepoManifest, history: str) -> FeatureView:
    name = history_view(history)
    return FeatureView(
        name=name,
        entities=[BY_NAME["user"]],
        ttl=ttl(0),
        schema=[join_key_field("user"), Field(name=HISTORY_FIELD, dtype=Array(Int64))],
        source=snapshot_source(name),
        tags=tags(manifest, kind="history"),
        owner=OWNER,
        description=f"Pins of the user's {history} history from before the event log, oldest first.",
    )
