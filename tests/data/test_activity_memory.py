"""A log larger than DuckDB's memory limit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import duckdb
import pyarrow.compute as pc

from tests.data.activity_logs import CUTOFF, MANIFEST, build, config, snapshot
from trainers.data.connection import literal

NUM_IMPRESSIONS = 2_700_000
NUM_USERS = 150_000
MEMORY_LIMIT = "120MB"


def _write_large_log(event_log: Path) -> None:
    """Three days of impressions, about 160 MB once decoded."""
    connection = duckdb.connect(config={"threads": 2})
    for day in range(3):
        folder = event_log / "impressions" / f"date=2024-01-{day + 8:02}"
        folder.mkdir(parents=True)
        connection.execute(
            f"""COPY (
                SELECT i AS impression_id, hash(i) % {NUM_USERS} AS user_id, hash(i + 1) % 1000 AS pin_id,
                    'home_feed' AS surface, make_timestamptz(1704672000000000 + {day} * 86400000000 + i * 95000)
                    AS event_timestamp, (i % 3 = 0)::TINYINT AS click, (i % 100 = 0)::TINYINT AS "like"
                FROM range({NUM_IMPRESSIONS // 3}) AS t(i)
            ) TO {literal(folder / "part-0.parquet")} (FORMAT parquet)"""
        )


def test_build_works_when_the_log_and_its_state_exceed_the_memory_limit(tmp_path: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, conversions=(), windows_days=(1, 2), sequence_length=20)
    settings = config(tmp_path, manifest=manifest, memory_limit=MEMORY_LIMIT)
    _write_large_log(settings.event_log)

    build(settings, [CUTOFF])

    users = snapshot(settings, "user")
    assert pc.sum(users["impressions_ever"]).as_py() == NUM_IMPRESSIONS
    assert pc.sum(users["click_ever"]).as_py() == pc.sum(snapshot(settings, "pin")["click_ever"]).as_py()
    assert pc.sum(pc.list_value_length(users["recent_pins"])).as_py() > NUM_IMPRESSIONS // 4
