"""The two entities, and how every object of the repo is tagged."""

from __future__ import annotations

from feast import Entity, Field, ValueType
from feast.types import Int64

from feature_repo.contract import RepoManifest, join_key

OWNER = "headwater"

USER = Entity(
    name="user",
    join_keys=[join_key("user")],
    value_type=ValueType.INT64,
    description="A person to whom Pins are shown.",
    owner=OWNER,
)
PIN = Entity(
    name="pin",
    join_keys=[join_key("pin")],
    value_type=ValueType.INT64,
    description="One item of the corpus.",
    owner=OWNER,
)
BY_NAME = {"user": USER, "pin": PIN}


def join_key_field(entity: str) -> Field:
    """Schema field of an entity's join key."""
    return Field(name=join_key(entity), dtype=Int64)


def tags(manifest: RepoManifest, **more: str) -> dict[str, str]:
    """Tags of a view or service: who owns it, from which dataset, and whatever else is told."""
    return {"owner": OWNER, "dataset": manifest.dataset, **more}
