"""Small event logs in the canonical layout, and the activity snapshots made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import RepoManifest
from trainers.data.activity import ActivityBuilder, ActivityConfig

DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
CUTOFF = datetime(2024, 1, 11, tzinfo=UTC)
WRITTEN = datetime(2024, 3, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", tz="UTC")

MANIFEST = RepoManifest(
    dataset="tiny",
    labels=("click", "like"),
    conversions=("purchase",),
    windows_days=(1, 7),
    sequence_length=3,
    surface_labels=("click", "like"),
    user_attributes=(),
    pin_attributes=(),
)


@dataclass(frozen=True, kw_only=True)
class Impression:
    """One row of `impressions`."""

    impression_id: int
    at: datetime
    user: int = 1
    pin: int = 10
    surface: str = "home"
    click: int | None = 0
    like: int | None = 0


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One row of `conversions`."""

    impression_id: int
    at: datetime
    user: int = 1
    pin: int = 10
    kind: str = "purchase"


@dataclass(frozen=True, kw_only=True)
class Log:
    """Rows of an event log."""

    impressions: Sequence[Impression] = field(default_factory=tuple)
    conversions: Sequence[Conversion] = field(default_factory=tuple)

    def before(self, cutoff: datetime) -> Log:
        """The rows strictly before a cut-off."""
        return Log(
            impressions=[row for row in self.impressions if row.at < cutoff],
            conversions=[row for row in self.conversions if row.at < cutoff],
        )

    def write(self, folder: Path) -> Path:
        """Write the canonical partitions, replacing those there."""
        for name, rows, schema in (
            ("impressions", self.impressions, IMPRESSION_SCHEMA),
            ("conversions", self.conversions, CONVERSION_SCHEMA),
        ):
            for day in {row.at.astimezone(UTC).date() for row in rows}:
                path = folder / name / f"date={day}" / "part-0.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                today = [_columns(row) for row in rows if row.at.astimezone(UTC).date() == day]
                pq.write_table(pa.Table.from_pylist(today, schema=schema), path)
        return folder


IMPRESSION_SCHEMA = pa.schema(
    {
        "impression_id": pa.int64(),
        "user_id": pa.int64(),
        "pin_id": pa.int64(),
        "surface": pa.string(),
        "event_timestamp": MOMENT,
        "click": pa.int8(),
        "like": pa.int8(),
    }
)
CONVERSION_SCHEMA = pa.schema(
    {
        "impression_id": pa.int64(),
        "user_id": pa.int64(),
        "pin_id": pa.int64(),
        "surface": pa.string(),
        "event_timestamp": MOMENT,
        "kind": pa.string(),
        "value": pa.float64(),
    }
)


def _columns(row: Impression | Conversion) -> dict[str, Any]:
    names = {"user": "user_id", "pin": "pin_id", "at": "event_timestamp"}
    return {names.get(name, name): value for name, value in dataclasses.asdict(row).items()}


def config(folder: Path, *, manifest: RepoManifest = MANIFEST, **options: Any) -> ActivityConfig:
    """Settings that read `folder/event_log` and write beside it."""
    return ActivityConfig(
        event_log=folder / "event_log",
        offline=folder / "offline",
        state=folder / "state",
        manifest=manifest,
        publish_delay=options.pop("publish_delay", timedelta(hours=1)),
        memory_limit=options.pop("memory_limit", "256MB"),
        threads=2,
        **options,
    )


def days(first: datetime, num_days: int) -> list[datetime]:
    """Consecutive cut-offs."""
    return [first + day * DAY for day in range(num_days)]


def build(settings: ActivityConfig, cutoffs: Iterable[datetime], written: datetime = WRITTEN) -> list[datetime]:
    """Build snapshots with a fixed `created_timestamp`."""
    return ActivityBuilder(settings).build(list(cutoffs), created_timestamp=written)


def snapshot(settings: ActivityConfig, entity: str, cutoff: datetime = CUTOFF) -> pa.Table:
    """Snapshot of an entity as written."""
    return pq.ParquetFile(settings.snapshot_path(entity, cutoff)).read()


def row(settings: ActivityConfig, entity: str, key: int, cutoff: datetime = CUTOFF) -> dict[str, Any]:
    """The one row of an entity in a snapshot."""
    (found,) = [item for item in snapshot(settings, entity, cutoff).to_pylist() if item[f"{entity}_id"] == key]
    return dict(found)


def snapshots(settings: ActivityConfig, cutoffs: Iterable[datetime]) -> dict[tuple[str, datetime], pa.Table]:
    """All snapshots of some cut-offs."""
    return {(entity, cutoff): snapshot(settings, entity, cutoff) for cutoff in cutoffs for entity in ("user", "pin")}
