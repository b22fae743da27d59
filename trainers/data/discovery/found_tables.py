"""What a table of a folder was found to be, and which of its columns are for what."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainers.data.discovery.folder import FoundTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """What a person says where names and counts do not tell."""

    impressions: str | None = None
    """Text in the file names of the impressions."""
    user: str | None = None
    """Column of the impressions that names the user."""
    pin: str | None = None
    """Column of the impressions that names the Pin."""
    surface: str | None = None
    """Column of the impressions that tells surfaces apart."""
    conversions: tuple[str, ...] = ()
    """Texts in the file names of conversions, where what they are called does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A column that was found for a purpose."""

    column: str
    why: str
    """Evidence, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityTable:
    """A table with a row, or several over time, per user or Pin."""

    table: FoundTable
    key: Role
    time: Role | None
    """From when a row holds; none where rows have no time."""
    covers_all: bool = True
    """Whether it has every entity that impressions name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionTable:
    """A table with events that came after impressions."""

    table: FoundTable
    impression: Role | None
    """Reference to an impression; without it `user` and `pin` say which impressions can have led to it."""
    user: Role | None
    pin: Role | None
    time: Role
    kind: Role | None
    value: Role | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryTable:
    """A table with the Pins that each user met before the log."""

    table: FoundTable
    user: Role
    pins: Role
    separator: str | None
    """Text between the Pins, where the files have no lists."""
    time: Role | None


@dataclass(kw_only=True, slots=True)
class Roles:
    """What was found in a folder."""

    impressions: FoundTable
    why_impressions: str
    user: Role
    pin: Role
    time: Role
    impression: Role | None = None
    position: Role | None = None
    """Place of the Pin among those shown together."""
    propensity: Role | None = None
    """Probability with which the Pin was chosen, where it was chosen at random."""
    users: EntityTable | None = None
    pins: EntityTable | None = None
    conversions: list[ConversionTable] = field(default_factory=list)
    histories: list[HistoryTable] = field(default_factory=list)
    unused: list[FoundTable] = field(default_factory=list)
