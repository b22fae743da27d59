"""Feature views of embedding versions: one view per entity, upstream model and version."""

from __future__ import annotations

from feast import FeatureView, Field
from feast.types import Array, Float32, UnixTimestamp

from feature_repo.contract import (
    DATA_CUTOFF_FIELD,
    EMBEDDING_FIELD,
    ENTITIES,
    EmbeddingVersion,
    RepoManifest,
    embedding_view,
    ttl,
)
from feature_repo.entities import BY_NAME, OWNER, join_key_field, tags
from feature_repo.sources import pushed_source


def embedding_views(manifest: RepoManifest) -> list[FeatureView]:
    """A view for users and one for Pins of every embedding version.

    The version is in the view's name because Feast sees no change when a retrain writes new vectors into one schema.
    """
    return [_embedding(manifest, entity, version) for version in manifest.embeddings for entity in ENTITIES]


def _embedding(manifest: RepoManifest, entity: str, version: EmbeddingVersion) -> FeatureView:
    name = embedding_view(entity, version.model, version.version)
    return FeatureView(
        name=name,
        entities=[BY_NAME[entity]],
        ttl=ttl(version.ttl_hours),
        schema=[join_key_field(entity), _vector(version), Field(name=DATA_CUTOFF_FIELD, dtype=UnixTimestamp)],
        source=pushed_source(name),
        tags=tags(manifest, kind="embedding", upstream_model=version.model, embedding_version=version.key),
        owner=OWNER,
        description=f"{entity.capitalize()} vectors of embedding version {version.key}, {version.dim} wide.",
    )


def _vector(version: EmbeddingVersion) -> Field:
    # Feast checks the width at materialize only for a field with a vector index.
    return Field(
        name=EMBEDDING_FIELD,
        dtype=Array(Float32),
        vector_index=True,
        vector_length=version.dim,
        vector_search_metric="COSINE",
    )
