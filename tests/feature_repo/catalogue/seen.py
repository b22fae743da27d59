"""Everything that a catalogue holds, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from feature_repo.catalogue.consumers import consumers_by_version
from feature_repo.catalogue.embedding_versions import read_versions
from feature_repo.catalogue.history import read_transitions
from feature_repo.catalogue.pointers import read_pointers
from feature_repo.catalogue.releases import read_releases
from feature_repo.catalogue.tables import days
from feature_repo.versions import Catalogue, Consumer, Pointers, ReleaseRecord, Transition, VersionRecord


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A catalogue's contents by name."""

    versions: Mapping[str, VersionRecord]
    days: Mapping[tuple[str, datetime], str]
    """State by version and cut-off."""
    releases: Mapping[str, ReleaseRecord]
    pointers: Pointers
    consumers: Mapping[str, Sequence[Consumer]]
    transitions: Sequence[Transition]

    def without_times(self) -> tuple[Any, ...]:
        """What a model can foretell: everything but times and the numbers of transitions."""
        versions = {key: (each.state.value, each.space_id, each.served_through) for key, each in self.versions.items()}
        releases = {name: (each.state.value, each.versions) for name, each in self.releases.items()}
        readers = {key: {(each.kind, each.name) for each in found} for key, found in self.consumers.items()}
        log = [(each.subject, each.before, each.after, each.who, each.why) for each in self.transitions]
        return versions, self.days, releases, self.pointers, readers, log


def look(catalogue: Catalogue) -> Seen:
    """Read a catalogue in one transaction."""
    with catalogue._database.reading() as connection:
        return Seen(
            versions={each.key: each for each in read_versions(connection)},
            days={(each.key, each.cutoff): each.state for each in connection.execute(select(days))},
            releases={each.id: each for each in read_releases(connection)},
            pointers=read_pointers(connection),
            consumers=consumers_by_version(connection),
            transitions=read_transitions(connection, None, None),
        )
