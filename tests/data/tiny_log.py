"""A hand-made shop of three users and three Pins, whose staged tables a test changes before ingesting them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.dataset import Attribute, Conversion, DatasetSpec, Task, Window
from trainers.data.event_log import EventLog, IngestReport, ingest

NOW = datetime(2024, 2, 1, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")


def at(day: int, hour: int = 0) -> datetime:
    """A moment of January 2024, UTC."""
    return datetime(2024, 1, day, hour, tzinfo=UTC)


def tiny_spec(**changes: Any) -> DatasetSpec:
    """Clicks, purchases within 2 days of a click, and one attribute of each kind."""
    declared: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny shop",
        "impression": "a row",
        "click": "a one",
        "labels": ("click",),
        "conversions": (Conversion(kind="purchase", attribution_days=2),),
        "tasks": (
            Task(name="click", label="click", domain="engagement"),
            Task(name="purchase", label="purchase", domain="conversion", given="click"),
        ),
        "ctr_task": "click",
        "cvr_task": "purchase",
        "user_attributes": (Attribute(name="age", kind="dense", type="float"),),
        "pin_attributes": (
            Attribute(name="topics", kind="multi_valued", type="int64"),
            Attribute(name="content", kind="vector", type="float", dim=2),
        ),
        "window": Window(features_from=at(2), train_from=at(3), test_from=at(5), until=at(6)),
        "quarantine_share": 0.5,
    }
    return DatasetSpec(**(declared | changes))


def tiny_tables() -> dict[str, dict[str, Any]]:
    """Staged columns: six impressions on four days, four clicks, two purchases."""
    return {
        "impressions": {
            "impression_id": [1, 2, 3, 4, 5, 6],
            "user_id": [1, 2, 1, 3, 2, 1],
            "pin_id": [10, 10, 11, 12, 11, 12],
            "surface": ["home", "home", "search", "home", "search", "home"],
            "event_timestamp": pa.array([at(2, 1), at(2, 9), at(3, 1), at(3, 2), at(5, 3), at(5, 4)], TIME),
            "click": pa.array([1, 0, 1, 1, 1, 0], pa.int8()),
        },
        "conversions": {
            "impression_id": [1, 4],
            "event_timestamp": pa.array([at(3, 12), at(5, 3)], TIME),
            "kind": ["purchase", "purchase"],
            "value": [9.5, None],
        },
        "users": {
            "user_id": [1, 2, 3],
            "event_timestamp": pa.array([at(1)] * 3, TIME),
            "age": [30.0, float("nan"), None],
        },
        "pins": {
            "pin_id": [10, 11, 12],
            "event_timestamp": pa.array([at(1)] * 3, TIME),
            "topics": [[1, 2], [], None],
            "content": [[0.0, 1.0], [1.0, 0.0], None],
        },
    }


def stage(folder: Path, tables: dict[str, dict[str, Any]]) -> Path:
    """Write staged tables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def ingest_tiny(
    folder: Path, tables: dict[str, dict[str, Any]], spec: DatasetSpec | None = None
) -> tuple[IngestReport, EventLog]:
    """The report and the event log of staged tables."""
    out = folder / "event_log"
    report = ingest(spec or tiny_spec(), stage(folder / "staging", tables), out, now=NOW)
    return report, EventLog(out)


def quarantine(log: EventLog, table: str) -> dict[str, list[Any]]:
    """Quarantined rows of a table."""
    rows: dict[str, list[Any]] = pq.read_table(log.path / "quarantine" / f"{table}.parquet").to_pydict()
    return rows
