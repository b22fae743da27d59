"""Tables of the catalogue, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.types import TypeDecorator

from feature_repo.catalogue.records import ALIGNMENTS, DAY_STATES, ReleaseState, VersionState, plain

SCHEMA_VERSION: Final = 1
"""Raised with every change of a table; recorded in the database and checked when it is opened."""


class UtcTimestamp(TypeDecorator[datetime]):
    """UTC-aware timestamp in microseconds; naive ones are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"timestamps must be UTC-aware (got {value.isoformat()} without a time zone)")
        moment = value.astimezone(UTC)
        # SQLite keeps text without a zone.
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        moment: datetime = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC)


class Figures(TypeDecorator[dict[str, float]]):
    """Figures by name as JSON, which knows no NaN and no infinity: those are kept as text."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, float] | None, dialect: Dialect) -> dict[str, Any]:
        del dialect
        return {name: plain(float(figure)) for name, figure in (value or {}).items()}

    def process_result_value(self, value: Any | None, dialect: Dialect) -> dict[str, float]:
        del dialect
        return {name: float(figure) for name, figure in (value or {}).items()}


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

schema = Table(
    "headwater_catalogue",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("home", String),
    Column("created", UtcTimestamp, nullable=False),
)

versions = Table(
    "headwater_versions",
    metadata,
    Column("key", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("ttl_hours", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("space_id", String),
    Column("recipe", JSON, nullable=False),
    Column("commit", String, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("data_from", UtcTimestamp),
    Column("data_until", UtcTimestamp),
    Column("parents", JSON, nullable=False),
    Column("alignment", String, nullable=False),
    Column("served_through", String, ForeignKey("headwater_versions.key")),
    Column("artifacts", JSON, nullable=False),
    Column("created", UtcTimestamp, nullable=False),
    _one_of("state", tuple(state.value for state in VersionState)),
    _one_of("alignment", ALIGNMENTS),
)

days = Table(
    "headwater_days",
    metadata,
    Column("key", String, ForeignKey("headwater_versions.key"), primary_key=True),
    Column("cutoff", UtcTimestamp, primary_key=True),
    Column("state", String, nullable=False),
    Column("gates", Figures, nullable=False),
    Column("failed", JSON, nullable=False),
    Column("snapshot_sha256", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("peak_mb", Float, nullable=False),
    Column("entities", JSON, nullable=False),
    Column("finished", UtcTimestamp, nullable=False),
    _one_of("state", DAY_STATES),
)

releases = Table(
    "headwater_releases",
    metadata,
    Column("id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("folder", String, nullable=False, unique=True),
    Column("manifest_sha256", String, nullable=False),
    Column("services", JSON, nullable=False),
    Column("parent", String, ForeignKey("headwater_releases.id")),
    Column("made_by", String, nullable=False),
    Column("data_cutoff", UtcTimestamp),
    Column("created", UtcTimestamp, nullable=False),
    _one_of("state", tuple(state.value for state in ReleaseState)),
)
_is_live = releases.c.state == "live"
Index("headwater_one_live_release", releases.c.state, unique=True, sqlite_where=_is_live, postgresql_where=_is_live)

release_versions = Table(
    "headwater_release_versions",
    metadata,
    Column("release", String, ForeignKey("headwater_releases.id"), primary_key=True),
    Column("key", String, ForeignKey("headwater_versions.key"), primary_key=True, index=True),
    Column("space_id", String, nullable=False),
)

promotions = Table(
    "headwater_promotions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("release", String, ForeignKey("headwater_releases.id"), nullable=False),
    Column("before", Integer, ForeignKey("headwater_promotions.id")),
)
"""A chain: each promotion and the one that it replaced. A rollback goes back along it."""

pointers = Table(
    "headwater_pointers",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("live", String, ForeignKey("headwater_releases.id")),
    Column("shadow", String, ForeignKey("headwater_releases.id")),
    Column("shadow_share", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("promotion", Integer, ForeignKey("headwater_promotions.id")),
)

split = Table(
    "headwater_split",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("release", String, ForeignKey("headwater_releases.id"), nullable=False),
    Column("share", Float, nullable=False),
    Column("holdout", Float, nullable=False),
    Column("salt", String, nullable=False),
)
"""The running split, no row without one. Added to catalogues that were made before there were splits."""

services = Table(
    "headwater_service_reads",
    metadata,
    Column("service", String, primary_key=True),
    Column("key", String, primary_key=True),
)
"""Feature services of teams' own and the versions they read, whether the catalogue knows those or not."""

transitions = Table(
    "headwater_transitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject", String, nullable=False, index=True),
    Column("before", String),
    Column("after", String),
    Column("at", UtcTimestamp, nullable=False),
    Column("who", String, nullable=False),
    Column("why", String, nullable=False),
    Column("details", JSON, nullable=False),
)
