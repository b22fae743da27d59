"""Which feature services read which embedding versions, as the feature registry knows it now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contract import ENTITIES, EmbeddingVersion, RepoManifest, consumer_services, embedding_view
from feature_repo.layout import open_store

if TYPE_CHECKING:
    from feature_repo.versions import Catalogue, VersionRecord


def record_consumers(catalogue: Catalogue, repo_dir: Path) -> dict[str, tuple[str, ...]]:
    """Tell the catalogue what every feature service reads; services of Headwater's own are told apart by name.

    Returns:
        Keys of the embedding versions that each service reads.
    """
    versions = catalogue.versions()
    services = services_of(repo_dir, versions)
    catalogue.record_consumers(services, generated_services(repo_dir, versions))
    return services


def generated_services(repo_dir: Path, versions: Iterable[VersionRecord]) -> set[str]:
    """Names of the services that Headwater declares, those of versions that a prune has begun to delete among them."""
    manifest = RepoManifest.load(repo_dir / "data")
    known = {each.key: each for each in manifest.embeddings}
    for version in versions:
        spec = EmbeddingVersion(
            model=version.model, version=version.version, dim=version.dim, ttl_hours=version.ttl_hours
        )
        known.setdefault(version.key, spec)
    return set(consumer_services(dataclasses.replace(manifest, embeddings=tuple(known.values()))))


def services_of(repo_dir: Path, versions: Iterable[VersionRecord]) -> dict[str, tuple[str, ...]]:
    """Keys of the embedding versions that each feature service reads."""
    keys = {view: version.key for version in versions for view in views_of(version)}
    found = {}
    for service in open_store(repo_dir).list_feature_services():
        read = [keys.get(each.name) for each in service.feature_view_projections]
        found[service.name] = tuple(dict.fromkeys(key for key in read if key is not None))
    return found


def views_of(version: VersionRecord) -> tuple[str, ...]:
    """Feature views of a version, one for each entity."""
    return tuple(embedding_view(entity, version.model, version.version) for entity in ENTITIES)
