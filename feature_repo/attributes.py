"""Feature views of the attributes that a dataset declares for users and Pins."""

from __future__ import annotations

from feast import FeatureView, Field
from feast.types import Array, FeastType, Float32, Float64, Int64, String

from feature_repo.contract import ENTITIES, AttributeField, RepoManifest, attributes_view, ttl
from feature_repo.entities import BY_NAME, OWNER, join_key_field, tags
from feature_repo.sources import pushed_source

_TYPES: dict[str, FeastType] = {"int64": Int64, "float": Float64, "string": String}


def attribute_views(manifest: RepoManifest) -> list[FeatureView]:
    """`user_attributes` and `pin_attributes`; an entity without declared attributes has no view."""
    return [_attributes(manifest, entity) for entity in ENTITIES if manifest.attributes(entity)]


def _attributes(manifest: RepoManifest, entity: str) -> FeatureView:
    name = attributes_view(entity)
    return FeatureView(
        name=name,
        entities=[BY_NAME[entity]],
        ttl=ttl(manifest.attributes_ttl_hours),
        schema=[join_key_field(entity), *(_field(item) for item in manifest.attributes(entity))],
        source=pushed_source(name),
        tags=tags(manifest, kind="attributes"),
        owner=OWNER,
        description=f"Attributes of a {entity} as the dataset declares them.",
    )


def _field(item: AttributeField) -> Field:
    if item.kind == "vector":
        return Field(name=item.name, dtype=Array(Float32), tags={"dim": str(item.dim)})
    dtype = _TYPES[item.type]
    return Field(name=item.name, dtype=Array(dtype) if item.kind == "multi_valued" else dtype)
