"""Whether a release and the Feast repo speak of the same features and embedding versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from feature_repo.contract import ENTITIES, attributes_view, embedding_view, feature_reference, join_key
from feature_repo.encoding import InputSpec
from feature_repo.release.manifest import ReleaseError, ReleaseManifest, Services

if TYPE_CHECKING:
    from feast import FeatureStore

References = Mapping[str, Sequence[str]]
"""Feast references `view:feature` by entity."""


def title_column(manifest: ReleaseManifest) -> str | None:
    """Column of Pin rows that names a Pin to people."""
    return feature_reference(attributes_view("pin"), manifest.pin_title) if manifest.pin_title else None


def references_by_service(store: FeatureStore, services: Services) -> dict[str, dict[str, list[str]]]:
    """Per service and entity, the `view:feature` references that the services of a release hold.

    Raises:
        ReleaseError: The repo lacks one of them.
    """
    entities: dict[str, str] = {}
    names = dict.fromkeys((services.ranking, services.retrieval))
    return {name: _service_references(store, name, entities) for name in names}


def _service_references(store: FeatureStore, service: str, entities: dict[str, str]) -> dict[str, list[str]]:
    """References of one service.

    Args:
        entities: Entity of each view that was looked up before: a look into the registry costs milliseconds.
    """
    # Importing Feast costs seconds, so it is left until a repo is read.
    from feast.errors import FeatureServiceNotFoundException

    try:
        projections = store.get_feature_service(service).feature_view_projections
    except FeatureServiceNotFoundException as error:
        known = sorted(item.name for item in store.list_feature_services())
        raise ReleaseError(f"the Feast repo must have service {service!r} (it has {known}); run feast apply") from error
    found: dict[str, list[str]] = {entity: [] for entity in ENTITIES}
    for projection in projections:
        if projection.name not in entities:
            (entities[projection.name],) = store.get_feature_view(projection.name).entities
        found[entities[projection.name]].extend(f"{projection.name}:{field.name}" for field in projection.features)
    return found


def served_references(found: Mapping[str, References], services: Services) -> dict[str, tuple[str, ...]]:
    """What a server reads: user features of both services, Pin features of the ranking service.

    Args:
        found: References of each of the services.
    """
    user = (*found[services.ranking]["user"], *found[services.retrieval]["user"])
    return {"user": tuple(dict.fromkeys(user)), "pin": tuple(found[services.ranking]["pin"])}


def check_agreement(manifest: ReleaseManifest, references: References) -> None:
    """Pass when every answer of the release can come from the features that are read.

    Args:
        references: What a server reads for each entity.

    Raises:
        ReleaseError: Another embedding version is read than the release was made with, or a model's input or the
            Pin title is not read; the text says all that is wrong.
    """
    if problems := disagreements(manifest, references):
        raise ReleaseError("; ".join(problems))


def disagreements(manifest: ReleaseManifest, references: References) -> list[str]:
    """What keeps the release from answering with these features; none when all agrees."""
    encoders = manifest.encoders
    title = title_column(manifest)
    needed = {
        "user": _columns((encoders.query_user, encoders.ranking_user)),
        "pin": _columns((encoders.ranking_pin,)) | ({title} if title else set()),
    }
    found: list[str] = []
    for entity in ENTITIES:
        found += _other_versions(manifest, entity, references[entity])
        found += lacking(needed[entity], entity, references[entity])
    return found


def lacking(needed: Iterable[str], entity: str, references: Sequence[str]) -> list[str]:
    """A sentence when features of the entity are needed and not among those referred to."""
    known = {join_key(entity), *(reference.replace(":", "__", 1) for reference in references)}
    if absent := sorted(set(needed) - known):
        return [
            f"the release's services must hold every {entity} feature that it uses (they lack {absent}); "
            "name other services in the manifest"
        ]
    return []


def _other_versions(manifest: ReleaseManifest, entity: str, references: Sequence[str]) -> list[str]:
    known = {embedding_view(entity, version.model, version.version) for version in manifest.embeddings}
    read = {reference.partition(":")[0] for reference in references}
    if wrong := sorted(view for view in read - known if view.startswith(f"{entity}_embedding_")):
        return [
            f"release {manifest.release} must read embedding versions {sorted(known)} (its services read {wrong}); "
            "name services of its own versions in the manifest"
        ]
    return []


def _columns(specs: Iterable[InputSpec]) -> set[str]:
    return {column for spec in specs for column in spec.columns()}
