"""Names and manifests that Feast objects, trainers and servers agree on.

Standard library only: everything may import this module, and it imports nothing of ours.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

ENTITIES = ("user", "pin")
"""The two entities; the join key of each is its name followed by `_id`."""

EVENT_TIMESTAMP = "event_timestamp"
"""Moment from which a row may be used."""
CREATED_TIMESTAMP = "created_timestamp"
"""Moment at which a row was written."""
EMBEDDING_FIELD = "embedding"
"""Field of every embedding view that holds the vector."""
DATA_CUTOFF_FIELD = "data_cutoff"
"""Field of every embedding view: the last moment that training or features could see."""

MANIFEST_FILE = "manifest.json"
PRESENT, MISSING, OUTSIDE_MAX_AGE = "present", "missing", "outside_max_age"
"""The three answers of an online read."""

AttributeKind = Literal["categorical", "dense", "multi_valued", "vector"]
AttributeType = Literal["int64", "float", "string"]

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")


def join_key(entity: str) -> str:
    """Join key column of an entity: `user_id` or `pin_id`."""
    if entity not in ENTITIES:
        raise ValueError(f"entity must be one of {ENTITIES} (got {entity!r})")
    return f"{entity}_id"


def activity_view(entity: str) -> str:
    """Feature view with the windowed counts, rates, recency and sequence of an entity."""
    return f"{entity}_activity"


def attributes_view(entity: str) -> str:
    """Feature view with the declared attributes of an entity."""
    return f"{entity}_attributes"


def history_view(name: str) -> str:
    """Feature view of a long user history, which upstream and retrieval read."""
    return f"user_history_{name}"


def embedding_view(entity: str, model: str, version: int) -> str:
    """Feature view of one embedding version, such as `pin_embedding_ctr_v3`."""
    join_key(entity)
    return f"{entity}_embedding_{model}_v{version}"


def snapshot_folder(view: str) -> str:
    """Folder of a view's snapshots in a feature repo, one parquet file per daily cut-off inside."""
    return f"data/offline/{view}"


def feature_reference(view: str, name: str) -> str:
    """Column that Feast returns for a feature with `full_feature_names=True`."""
    return f"{view}__{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeField:
    """One declared attribute of an entity."""

    name: str
    """Column in the event log's `users` or `pins` table."""
    kind: AttributeKind
    """How models read it."""
    type: AttributeType
    """Type of the value, or of one element for `multi_valued`; `float` for vectors."""
    dim: int = 0
    """Width of a `vector`; 0 for the other kinds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingVersion:
    """One vector space of one upstream model, as Feast sees it."""

    model: str
    """Upstream model: `ctr` (engagement domain), `cvr` (conversion domain) or `unified` (both)."""
    version: int
    """Embedding version, 1 or more."""
    dim: int
    """Width of the vectors; the same for users and Pins."""
    ttl_hours: int = 72
    """A vector older than this is outside max age."""

    @property
    def key(self) -> str:
        """Short name used in feature services and answers: `ctr_v1`."""
        return f"{self.model}_v{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RepoManifest:
    """Everything from which the feature repo's objects follow."""

    dataset: str
    """Name of the dataset."""
    labels: tuple[str, ...]
    """Labels known with the impression, in the event log's order."""
    conversions: tuple[str, ...]
    """Conversion kinds, which arrive later."""
    windows_days: tuple[int, ...]
    """Windows of the activity counts."""
    sequence_length: int
    """Longest recent-Pin sequence in `user_activity`."""
    user_attributes: tuple[AttributeField, ...]
    """Fields of `user_attributes`; without any there is no such view."""
    pin_attributes: tuple[AttributeField, ...]
    """Fields of `pin_attributes`; without any there is no such view."""
    surface_labels: tuple[str, ...] = ()
    """Labels whose rate is also told apart from what an entity's surfaces explain of it."""
    histories: tuple[str, ...] = ()
    """Long user histories that only upstream reads."""
    embeddings: tuple[EmbeddingVersion, ...] = ()
    """Embedding versions with a view each for users and Pins."""
    activity_ttl_hours: int = 72
    """Age after which activity features are outside max age."""
    attributes_ttl_hours: int = 0
    """Age after which attributes are outside max age; 0 for never."""

    def __post_init__(self) -> None:
        for name in (*self.labels, *self.conversions, *self.histories):
            if not _NAME.match(name):
                raise ValueError(f"names must match {_NAME.pattern} (got {name!r}); rename the column")
        unknown = [label for label in self.surface_labels if label not in self.labels]
        if unknown:
            raise ValueError(f"surface_labels must be among the labels {self.labels} (got {unknown}); correct them")

    def attributes(self, entity: str) -> tuple[AttributeField, ...]:
        """Declared attributes of an entity."""
        return self.user_attributes if entity == "user" else self.pin_attributes

    def to_json(self) -> str:
        """Indented JSON with stable key order."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RepoManifest:
        """Manifest read back from `to_json`."""
        raw: dict[str, Any] = json.loads(text)
        for key in ("user_attributes", "pin_attributes"):
            raw[key] = tuple(AttributeField(**item) for item in raw[key])
        raw["embeddings"] = tuple(EmbeddingVersion(**item) for item in raw["embeddings"])
        for key in ("labels", "conversions", "windows_days", "histories", "surface_labels"):
            raw[key] = tuple(raw.get(key, ()))
        return cls(**raw)

    @classmethod
    def load(cls, data_dir: Path) -> RepoManifest:
        """Manifest of the feature repo whose state lies in `data_dir`."""
        return cls.from_json((data_dir / MANIFEST_FILE).read_text())


def label_columns(manifest: RepoManifest) -> tuple[str, ...]:
    """Names under which activity is counted: every label, then every conversion kind."""
    return (*manifest.labels, *manifest.conversions)


def activity_fields(manifest: RepoManifest, entity: str) -> dict[str, str]:
    """Fields of an activity view and their types (`int64`, `float`, `int64_list`, `float_list`, `string_list`).

    Per window `W` days: `impressions_Wd`, `<label>_Wd` and the smoothed `<label>_rate_Wd`; the same with suffix
    `_ever`; `hours_since_impression` and `hours_since_<label>` (null when it never happened);
    `<label>_excess_ever` of each of the manifest's `surface_labels`; for users
    also the last `sequence_length` engaged Pins, oldest first, as four lists of one length.
    """
    fields: dict[str, str] = {}
    for suffix in (*(f"{days}d" for days in manifest.windows_days), "ever"):
        fields[f"impressions_{suffix}"] = "int64"
        for label in label_columns(manifest):
            fields[f"{label}_{suffix}"] = "int64"
            fields[f"{label}_rate_{suffix}"] = "float"
    fields["hours_since_impression"] = "float"
    for label in label_columns(manifest):
        fields[f"hours_since_{label}"] = "float"
    for label in manifest.surface_labels:
        fields[f"{label}_excess_ever"] = "float"
    if entity == "user":
        fields |= {
            "recent_pins": "int64_list",
            "recent_actions": "int64_list",
            "recent_surfaces": "string_list",
            "recent_ages_hours": "float_list",
        }
    return fields


def service_name(
    consumer: str, versions: tuple[EmbeddingVersion, ...] = (), entities: tuple[str, ...] = ENTITIES
) -> str:
    """Feature service of a consumer, named with the embedding versions it reads.

    `upstream`, `ranking`, `ranking__user_ctr_v1`, `ranking__ctr_v1__cvr_v1`: an entity prefix appears only when
    the vectors of one entity alone are read.
    """
    prefix = "" if set(entities) == set(ENTITIES) else f"{entities[0]}_"
    return "__".join([consumer, *(f"{prefix}{version.key}" for version in versions)])


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceDeclaration:
    """A feature service before it is a Feast object."""

    name: str
    """Name of the service, from `service_name`."""
    consumer: str
    """Who reads it: `upstream`, `ranking` or `retrieval`."""
    views: tuple[str, ...]
    """Feature views, in the order in which their features are returned."""
    versions: tuple[EmbeddingVersion, ...] = ()
    """Embedding versions whose vectors it reads."""
    entities: tuple[str, ...] = ENTITIES
    """Entities whose vectors it reads."""


HISTORY_SERVICE = "retrieval_histories"
"""Feature service of the long histories alone; absent where a dataset has none."""


def base_views(manifest: RepoManifest) -> tuple[str, ...]:
    """Activity and attribute views of both entities: what every consumer reads."""
    activity = [activity_view(entity) for entity in ENTITIES]
    return (*activity, *(attributes_view(entity) for entity in ENTITIES if manifest.attributes(entity)))


def consumer_services(manifest: RepoManifest) -> dict[str, ServiceDeclaration]:
    """Every feature service of the repo by name.

    `upstream` reads the base views and the histories, `upstream_user` and `upstream_pin` the part of one entity, to
    generate its embeddings. `ranking` reads the base views, `retrieval` the histories too, and for each
    embedding version both also: the user's vectors, the Pin's, both; and both of several versions, one of each of some
    models. `retrieval_histories` has the histories alone, for rows that have their other features already.
    """
    histories = tuple(history_view(name) for name in manifest.histories)
    found = [ServiceDeclaration(name="upstream", consumer="upstream", views=base_views(manifest) + histories)]
    for entity in ENTITIES:
        views = tuple(view for view in found[0].views if view.startswith(f"{entity}_"))
        found.append(ServiceDeclaration(name=f"upstream_{entity}", consumer="upstream", views=views))
    for consumer, views in (("ranking", ()), ("retrieval", histories)):
        found += [_service(manifest, consumer, views, *variant) for variant in _embedding_variants(manifest)]
    if histories:
        found.append(ServiceDeclaration(name=HISTORY_SERVICE, consumer="retrieval", views=histories))
    return {service.name: service for service in found}


def _embedding_variants(manifest: RepoManifest) -> list[tuple[tuple[EmbeddingVersion, ...], tuple[str, ...]]]:
    variants: list[tuple[tuple[EmbeddingVersion, ...], tuple[str, ...]]] = [((), ENTITIES)]
    for version in manifest.embeddings:
        variants += [((version,), ("user",)), ((version,), ("pin",)), ((version,), ENTITIES)]
    models = tuple(dict.fromkeys(version.model for version in manifest.embeddings))
    for count in range(2, len(models) + 1):
        for chosen in itertools.combinations(models, count):
            of_each = ([version for version in manifest.embeddings if version.model == model] for model in chosen)
            variants += [(versions, ENTITIES) for versions in itertools.product(*of_each)]
    return variants


def _service(
    manifest: RepoManifest,
    consumer: str,
    more: tuple[str, ...],
    versions: tuple[EmbeddingVersion, ...],
    entities: tuple[str, ...],
) -> ServiceDeclaration:
    vectors = (embedding_view(entity, item.model, item.version) for item in versions for entity in entities)
    return ServiceDeclaration(
        name=service_name(consumer, versions, entities),
        consumer=consumer,
        views=(*base_views(manifest), *more, *vectors),
        versions=versions,
        entities=entities,
    )


def ttl(hours: int) -> timedelta:
    """TTL as Feast takes it; zero means rows never age out."""
    return timedelta(hours=hours)


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one step, so that a reader sees the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)
