"""The smallest shop that lives: 24 users, 16 Pins, sixteen days of sixty impressions, one upstream model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

NUM_USERS, NUM_PINS, NUM_DAYS, ROWS_A_DAY = 24, 16, 16, 60
PUSHED = {"user": tuple(range(101, 104)), "pin": tuple(range(201, 203))}
"""Entities that no raw data knows, and that are only ever pushed."""
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DELAY = timedelta(hours=1)
"""From a day's cut-off to the moment from which its vectors may be used, where nothing else is declared."""
UNTIL = FIRST + 6 * DAY
"""Where the run's window ends; every later day is there to refresh with."""
_MICROS = pa.timestamp("us", tz="UTC")


def write_shop(folder: Path) -> Path:
    """Write raw data of all days and their declaration; gives the declaration."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    for number in range(NUM_DAYS):
        pq.write_table(_impressions(random, number), folder / f"impressions-{FIRST + number * DAY:%Y-%m-%d}.parquet")
    for name, key, count in (("users", "user_id", NUM_USERS), ("pins", "pin_id", NUM_PINS)):
        listed = pa.repeat(pa.scalar(FIRST - 10 * DAY, _MICROS), count)
        kinds = [f"kind {number % 3}" for number in range(count)]
        rows = {key: list(range(1, count + 1)), "event_timestamp": listed, "group": kinds}
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    file = folder / "shop.yaml"
    file.write_text(yaml.safe_dump(_declaration()))
    return file


def _impressions(random: np.random.Generator, number: int) -> pa.Table:
    """Every user and every Pin once at least, spread over the day, the last one near its end."""
    users = np.concatenate([np.arange(NUM_USERS), random.integers(NUM_USERS, size=ROWS_A_DAY - NUM_USERS)]) + 1
    pins = np.concatenate([random.integers(NUM_PINS, size=ROWS_A_DAY - NUM_PINS), np.arange(NUM_PINS)]) + 1
    begin = int((FIRST + number * DAY).timestamp() * 1_000_000)
    moments = begin + (np.arange(ROWS_A_DAY) + 1) * int(86_400e6 / (ROWS_A_DAY + 2))
    return pa.table(
        {
            "impression_id": np.arange(ROWS_A_DAY) + 1 + number * ROWS_A_DAY,
            "user_id": users,
            "pin_id": pins,
            "surface": ["home"] * ROWS_A_DAY,
            "event_timestamp": pa.array(moments).cast(_MICROS),
            "click": random.integers(2, size=ROWS_A_DAY).astype(np.int8),
        }
    )


def _declaration() -> dict[str, Any]:
    window = {"features_from": FIRST, "train_from": FIRST + 3 * DAY, "test_from": UNTIL - DAY, "until": UNTIL}
    tables: dict[str, Any] = {"impressions": {"files": "impressions-*.parquet"}}
    tables["impressions"]["columns"] = {"impression_id": "impression_id"}
    return {
        "name": "smallest",
        "title": "The smallest shop",
        "impression": "A Pin that was shown.",
        "click": "It was opened.",
        "labels": ["click"],
        "tasks": [{"name": "click", "label": "click", "domain": "engagement"}],
        "ctr_task": "click",
        "user_attributes": [{"name": "group", "kind": "categorical"}],
        "pin_attributes": [{"name": "group", "kind": "categorical"}],
        "window": {name: moment.isoformat() for name, moment in window.items()},
        "tables": tables | {name: {"files": f"{name}.parquet"} for name in ("users", "pins")},
    }
