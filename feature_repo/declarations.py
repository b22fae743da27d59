"""From a manifest to every Feast object of a repo."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from feast import Entity, FeatureService, FeatureView

from feature_repo.activity import activity_views, history_views
from feature_repo.attributes import attribute_views
from feature_repo.contract import MANIFEST_FILE, RepoManifest
from feature_repo.embeddings import embedding_views
from feature_repo.entities import BY_NAME
from feature_repo.services import feature_services

FeastObject: TypeAlias = Entity | FeatureView | FeatureService


def declare(manifest: RepoManifest) -> dict[str, FeastObject]:
    """Entities, feature views and feature services by name."""
    views = feature_views(manifest)
    services = {service.name: service for service in feature_services(manifest, views)}
    return {**BY_NAME, **views, **services}


def feature_views(manifest: RepoManifest) -> dict[str, FeatureView]:
    """Feature views by name."""
    groups = (activity_views, history_views, attribute_views, embedding_views)
    return {view.name: view for group in groups for view in group(manifest)}


def load(data_dir: Path) -> dict[str, FeastObject]:
    """Objects of the repo whose state lies in `data_dir`; the two entities alone before there is a manifest."""
    if not (data_dir / MANIFEST_FILE).is_file():
        return dict(BY_NAME)
    return declare(RepoManifest.load(data_dir))
