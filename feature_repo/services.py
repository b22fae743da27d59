"""Feature services: what each consumer reads, named with the embedding versions in it."""

from __future__ import annotations

from collections.abc import Mapping

from feast import FeatureService, FeatureView

from feature_repo.contract import RepoManifest, ServiceDeclaration, consumer_services
from feature_repo.entities import OWNER, tags


def feature_services(manifest: RepoManifest, views: Mapping[str, FeatureView]) -> list[FeatureService]:
    """The declared services over views that exist, whole views each."""
    return [_service(manifest, declared, views) for declared in consumer_services(manifest).values()]


def _service(manifest: RepoManifest, declared: ServiceDeclaration, views: Mapping[str, FeatureView]) -> FeatureService:
    upstream = ",".join(version.key for version in declared.versions)
    return FeatureService(
        name=declared.name,
        features=[views[name] for name in declared.views],
        tags=tags(manifest, consumer=declared.consumer, **({"upstream_model": upstream} if upstream else {})),
        owner=OWNER,
        description=f"Features that {declared.consumer} reads" + (f" with vectors of {upstream}." if upstream else "."),
    )
