"""What a push did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class PushedVersion:
    """What one version's view got."""

    version: str
    """Key of the version."""
    view: str
    """Feature view that the rows went to."""
    space_id: str
    towers: datetime
    """Data cut-off of the towers."""
    continued: int
    """Entities whose vector continues the newest snapshot's; the others begin with this one."""
    newer_kept: int | None
    """Entities of which a newer row stays online; none where the store does not say, or nothing was written."""
    unseen: Mapping[str, int]
    """Given categories that the towers have never seen, per attribute: to them they are like missing ones."""

    def to_dict(self) -> dict[str, Any]:
        """The version's part as JSON holds it."""
        return dataclasses.asdict(self) | {"towers": self.towers.isoformat()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """A push that is done."""

    entity: str
    ids: tuple[int, ...]
    event_timestamp: datetime
    """From when the rows may be used."""
    attributes: int
    """Entities whose attributes were written."""
    versions: tuple[PushedVersion, ...]
    seconds: float
    """Wall time, waiting for other pushes included."""

    def to_dict(self) -> dict[str, Any]:
        """The push as JSON holds it, with the number of ids in their place."""
        return {
            "entity": self.entity,
            "rows": len(self.ids),
            "event_timestamp": self.event_timestamp.isoformat(),
            "attributes": self.attributes,
            "versions": [each.to_dict() for each in self.versions],
            "seconds": self.seconds,
        }
