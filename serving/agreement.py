"""Whether a release and the Feast repo speak of the same features and embedding versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from feature_repo.contract import ENTITIES, attributes_view, embedding_view, feature_reference
from feature_repo.encoding import InputSpec
from serving.artifacts import ReleaseError, ReleaseManifest
from serving.online_features import EntityFeatures, by_view


def title_column(manifest: ReleaseManifest) -> str | None:
    """Column of Pin rows that names a Pin to people."""
    return feature_reference(attributes_view("pin"), manifest.pin_title) if manifest.pin_title else None


def check_agreement(manifest: ReleaseManifest, features: Mapping[str, EntityFeatures]) -> None:
    """Pass when every answer of the release can come from the features that are read.

    Raises:
        ReleaseError: Another embedding version is read than the release was made with, or a model's input or the
            Pin title is not read.
    """
    for entity in ENTITIES:
        _check_versions(manifest, features[entity])
    encoders = manifest.encoders
    _check_columns(features["user"], _columns((encoders.query_user, encoders.ranking_user)))
    title = title_column(manifest)
    _check_columns(features["pin"], _columns((encoders.ranking_pin,)) | ({title} if title else set()))


def _check_versions(manifest: ReleaseManifest, features: EntityFeatures) -> None:
    entity = features.entity
    known = {embedding_view(entity, version.model, version.version) for version in manifest.embeddings}
    read = {view for view in by_view(features.references) if view.startswith(f"{entity}_embedding_")}
    if wrong := sorted(read - known):
        raise ReleaseError(
            f"release {manifest.release} must read embedding versions {sorted(known)} (its services read {wrong}); "
            "export the release again"
        )


def _columns(specs: Iterable[InputSpec]) -> set[str]:
    return {column for spec in specs for column in spec.columns()}


def _check_columns(features: EntityFeatures, needed: set[str]) -> None:
    if absent := sorted(needed - features.columns):
        raise ReleaseError(
            f"the release's services must hold every {features.entity} feature that it uses (they lack {absent}); "
            "name other services in the manifest"
        )
