"""Staging only what is new, and telling by sums whether earlier days are what they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.integration.runs import SHOP
from trainers.data import own_data
from trainers.data.adapters import Adapter, AdapterOptions, get_adapter
from trainers.data.connection import connect
from trainers.data.event_log import log_progress
from trainers.data.raw_days import EVENT_TABLES, changed_days, day_sums, may_have_changed, staged_sums

KUAIRAND = Path(__file__).parents[3] / "shared" / "data" / "kuairand_pure"
DAY = timedelta(days=1)
SHOP_DAY = datetime(2024, 3, 9, tzinfo=UTC)


def staged(adapter: Adapter, folder: Path, **options: object) -> Path:
    """Folder with everything that an adapter stages."""
    folder.mkdir(parents=True)
    adapter.stage(folder, AdapterOptions(**options), log_progress)  # type: ignore[arg-type]
    return folder


def sums(folder: Path, anchor: datetime) -> dict[str, dict[str, str]]:
    """Sums of both tables."""
    with connect(temp=folder / "spill") as connection:
        return {table: staged_sums(connection, folder, table, anchor) for table in EVENT_TABLES}


def test_own_files_stage_new_events_and_sums_of_the_others(tmp_path: Path) -> None:
    _, adapter = own_data.load(SHOP)
    whole = staged(adapter, tmp_path / "whole")
    new = staged(adapter, tmp_path / "new", since=SHOP_DAY)
    assert may_have_changed(new)
    assert sums(new, SHOP_DAY) == sums(whole, SHOP_DAY)
    for table in EVENT_TABLES:
        rows, everything = (pq.read_table(folder / f"{table}.parquet").num_rows for folder in (new, whole))
        assert 0 < rows < everything
    assert pq.read_table(new / "users.parquet").equals(pq.read_table(whole / "users.parquet"))


def test_generated_data_stages_new_events_and_cannot_have_changed(tmp_path: Path) -> None:
    options = {"seed": 2, "num_users": 50, "num_pins": 20, "num_days": 9}
    whole = staged(get_adapter("synthetic"), tmp_path / "whole", **options)
    since = datetime(2024, 1, 6, tzinfo=UTC)
    new = staged(get_adapter("synthetic"), tmp_path / "new", since=since, **options)
    assert not may_have_changed(new)
    for table in EVENT_TABLES:
        everything = pq.read_table(whole / f"{table}.parquet")
        when = everything["event_timestamp"]
        expected = everything.filter(pc.greater_equal(when, pa.scalar(since, when.type)))
        assert pq.read_table(new / f"{table}.parquet").to_pylist() == expected.to_pylist()


@pytest.mark.data
def test_kuairand_stages_new_events_and_sums_of_the_others(tmp_path: Path) -> None:
    if not KUAIRAND.is_dir():
        pytest.skip(f"{KUAIRAND} is absent")
    since = datetime(2022, 5, 7, 16, tzinfo=UTC)
    whole = staged(get_adapter("kuairand"), tmp_path / "whole", path=KUAIRAND, scale=0.02)
    new = staged(get_adapter("kuairand"), tmp_path / "new", path=KUAIRAND, scale=0.02, since=since)
    assert sums(new, since) == sums(whole, since)
    rows = pq.read_table(new / "impressions.parquet")
    assert 0 < rows.num_rows < pq.read_table(whole / "impressions.parquet").num_rows
    assert pc.min(rows["event_timestamp"]).as_py() >= since


def test_sums_name_a_day_by_the_cutoff_that_ends_it_and_ignore_the_order_of_rows(tmp_path: Path) -> None:
    anchor = datetime(2024, 1, 1, 16, tzinfo=UTC)
    rows = "(TIMESTAMPTZ '2024-01-01 15:59:59+00', 1), (TIMESTAMPTZ '2024-01-01 16:00:00+00', 2), (NULL, 3)"
    with connect(temp=tmp_path) as connection:
        found = day_sums(connection, f"SELECT * FROM (VALUES {rows}) AS t(event_timestamp, n)", anchor)
        turned = day_sums(connection, f"SELECT * FROM (VALUES {rows}) AS t(event_timestamp, n) ORDER BY n DESC", anchor)
    assert {day: value.split()[0] for day, value in found.items()} == {"": "1", "2024-01-01": "1", "2024-01-02": "1"}
    assert turned == found


def test_changed_days_are_those_before_the_cutoff_that_differ() -> None:
    before = {"2024-01-02": "3 7", "2024-01-03": "1 1", "": "2 5"}
    now = {"2024-01-02": "3 8", "2024-01-04": "9 9", "": "4 5"}
    assert changed_days(before, now, datetime(2024, 1, 3, tzinfo=UTC)) == ["2024-01-02", "2024-01-03"]
    assert changed_days(before, before, datetime(2024, 1, 3, tzinfo=UTC)) == []
