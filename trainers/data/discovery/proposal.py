"""From a folder to a proposed declaration: everything found, with the evidence for each guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.data.connection import connect
from trainers.data.discovery.entity_attributes import Attributes, find_attributes
from trainers.data.discovery.folder import FoundTable, find_tables, has_repeats
from trainers.data.discovery.found_tables import EntityTable, Hints, Role, Roles
from trainers.data.discovery.roles import find_roles
from trainers.data.discovery.targets import Kind, Label, find_kinds, find_labels, find_surface
from trainers.data.discovery.windows import FoundWindow, find_window
from trainers.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What a folder seems to hold."""

    name: str
    tables: tuple[FoundTable, ...]
    roles: Roles
    surface: Role | None
    labels: tuple[Label, ...]
    kinds: list[tuple[Kind, ...]]
    """Kinds of conversions by table, in the order of `roles.conversions`."""
    users: Attributes | None
    pins: Attributes | None
    window: FoundWindow
    repeats: bool
    """Whether users meet the same Pin again."""

    @property
    def all_kinds(self) -> tuple[Kind, ...]:
        """Kinds of conversions, each once, the most frequent first."""
        return _most_frequent_first(self.kinds)

    def key_type(self, role: Role | None) -> str:
        """Type of a key of the impressions: `int64` or `string`."""
        if role is None:
            return "int64"
        return "string" if self.roles.impressions.columns[role.column].reading == "text" else "int64"


def propose(folder: Path, name: str, hints: Hints, temp: Path, progress: Progress) -> Proposal:
    """Look at every file of a folder.

    Raises:
        SpecError: Something is missing that no declaration can do without; the text says what to say or add.
    """
    with connect(temp=temp) as connection:
        tables = find_tables(connection, folder, progress)
        with progress.stage("compare keys, labels and days", 4) as stage:
            roles = find_roles(connection, tables, hints)
            stage.advance()
            surface = find_surface(roles, hints.surface)
            labels = find_labels(connection, roles, surface)
            stage.advance()
            kinds = find_kinds(connection, roles)
            stage.advance()
            # The kind that rankers are judged on must become final in time; a slow one beside it may not.
            first = _most_frequent_first(kinds)[:1]
            judged = [
                table
                for table, group in zip(roles.conversions, kinds, strict=True)
                if {kind.name for kind in group} & {kind.name for kind in first}
            ]
            window = find_window(connection, roles, judged, max((kind.attribution_days for kind in first), default=0))
            repeats = has_repeats(connection, roles.impressions, roles.user.column, roles.pin.column)
            stage.advance()
    return Proposal(
        name=name,
        tables=tuple(tables),
        roles=roles,
        surface=surface,
        labels=labels,
        kinds=kinds,
        users=_attributes(roles.users),
        pins=_attributes(roles.pins),
        window=window,
        repeats=repeats,
    )


def _most_frequent_first(kinds: Sequence[Sequence[Kind]]) -> tuple[Kind, ...]:
    unique = {kind.name: kind for group in kinds for kind in group}
    return tuple(sorted(unique.values(), key=lambda kind: -kind.count))


def _attributes(entity: EntityTable | None) -> Attributes | None:
    return find_attributes(entity) if entity else None
