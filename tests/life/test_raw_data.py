"""Raw data that grows: whole days join the log, late rows are kept aside, changed ones stop everything."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.integration.runs import headwater
from tests.life.shop import UNTIL, Shop, ingested
from trainers.data.append import ChangedDaysError
from trainers.data.event_log import EventLog
from trainers.life.home import Home
from trainers.life.raw_data import IncompleteDayError, bring_day
from trainers.life.refresh import refresh
from trainers.progress import SILENT

DAY = timedelta(days=1)
NEXT = UNTIL + DAY


def test_appended_days_leave_the_log_of_a_whole_ingestion(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(9)
    for number in range(2):
        bring_day(home, UNTIL + number * DAY, UNTIL + (number + 1) * DAY, SILENT)
    whole = ingested(shop, home.run.with_name("whole"))
    for table in ("impressions", "conversions"):
        ours, theirs = (getattr(log, table)(UNTIL - 30 * DAY, UNTIL + 2 * DAY) for log in (home.log, whole))
        assert ours.num_rows > 0
        assert ours.equals(theirs)


def test_appending_a_day_again_gives_the_same_files(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    figures = bring_day(home, UNTIL, NEXT, SILENT)
    first = home.log.impressions(UNTIL, NEXT)
    assert bring_day(home, UNTIL, NEXT, SILENT) == {**figures, "late": 0}
    assert home.log.impressions(UNTIL, NEXT).equals(first)
    names = sorted(file.name for file in (home.log.path / "impressions" / "date=2024-01-08").iterdir())
    assert names == ["appended-2024-01-09.parquet"]


def test_a_day_that_is_not_complete_is_refused(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    expected = r"the whole day until 2024-01-09 00:00 UTC \(it has none from 2024-01-08 00:00 on\)"
    with pytest.raises(IncompleteDayError, match=expected):
        bring_day(home, UNTIL, NEXT, SILENT)
    shop.show(8)
    morning = shop.rows("impressions", 7)
    hour = pc.hour(morning["event_timestamp"])
    shop.change("impressions", 7, morning.filter(pc.less(hour, 9)))
    expected = r"its last one is of 2024-01-08 08:\d\d.*give --as-of 2024-01-08 at most"
    with pytest.raises(IncompleteDayError, match=expected):
        bring_day(home, UNTIL, NEXT, SILENT)
    assert home.log.impressions(UNTIL, NEXT).num_rows == 0
    message = headwater("refresh", "--run", home.run, "--as-of", "2024-01-09", code=2).stderr
    assert "must hold the impressions of the whole day" in message


def test_a_late_row_is_counted_kept_aside_and_not_counted_again(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(9)
    before = home.log.impressions(UNTIL - 30 * DAY, UNTIL)
    late = _with_id(shop.rows("impressions", 4).slice(0, 2), [900_001, 900_002])
    shop.change("impressions", 4, pa.concat_tables([shop.rows("impressions", 4), late]))
    assert bring_day(home, UNTIL, NEXT, SILENT)["late"] == 2
    kept = pq.ParquetFile(home.log.path / "late" / "appended-2024-01-09" / "impressions.parquet").read()
    assert kept["impression_id"].to_pylist() == [900_001, 900_002]
    assert home.log.impressions(UNTIL - 30 * DAY, UNTIL).equals(before)
    assert bring_day(home, NEXT, NEXT + DAY, SILENT)["late"] == 0


def test_a_changed_row_stops_the_refresh_and_names_its_day(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    rows = shop.rows("impressions", 5)
    flipped = pa.array([1 - value if i == 0 else value for i, value in enumerate(rows["click"].to_pylist())], pa.int8())
    shop.change("impressions", 5, rows.set_column(rows.column_names.index("click"), "click", flipped))
    with pytest.raises(ChangedDaysError, match=r"got 1 impressions that changed or are gone, the first on 2024-01-06"):
        refresh(home, date(2024, 1, 9), SILENT)
    assert home.newest_day("ctr_v1").cutoff == UNTIL
    assert home.log.impressions(UNTIL, NEXT).num_rows == 0


def test_rows_of_an_earlier_day_that_are_gone_stop_the_refresh(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    shop.change("conversions", 3, shop.rows("conversions", 3).slice(1))
    with pytest.raises(ChangedDaysError, match=r"got 1 conversions that changed or are gone, the first on 2024-01-04"):
        bring_day(home, UNTIL, NEXT, SILENT)


def test_bad_rows_of_a_day_are_set_aside_or_stop_it(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    rows = shop.rows("impressions", 7)
    shop.change("impressions", 7, pa.concat_tables([rows, _with_user(rows.slice(0, 1), 777_777)]))
    figures = bring_day(home, UNTIL, NEXT, SILENT)
    assert (figures["impressions"], figures["quarantined"]) == (rows.num_rows, 1)
    aside = pq.ParquetFile(home.log.path / "quarantine" / "appended-2024-01-09" / "impressions.parquet").read()
    assert aside["reason"].to_pylist() == ["duplicate impression_id"]
    bad = _with_user(_with_id(rows.slice(0, 20), list(range(910_000, 910_020))), 777_777)
    shop.change("impressions", 7, pa.concat_tables([rows, bad]))
    with pytest.raises(ValueError, match=r"bad rows in table impressions must stay at or below a share of 0.02"):
        bring_day(home, UNTIL, NEXT, SILENT)


def test_new_users_and_pins_join_and_those_that_are_there_stay(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    file = shop.raw / "users.parquet"
    users = pq.read_table(file)
    newcomer = users.slice(0, 1)
    for name, value in (("user_id", pa.array([5_000])), ("tenure_days", pa.array([1.0]))):
        newcomer = newcomer.set_column(newcomer.column_names.index(name), name, value)
    changed = users.set_column(users.column_names.index("tenure_days"), "tenure_days", pa.array([7.0] * users.num_rows))
    pq.write_table(pa.concat_tables([changed, newcomer]), file)
    held = pq.read_table(home.log.path / "users.parquet")
    assert bring_day(home, UNTIL, NEXT, SILENT)["users"] == 1
    grown = pq.read_table(home.log.path / "users.parquet")
    assert grown.slice(0, held.num_rows).to_pylist() == held.to_pylist()
    assert grown["user_id"].to_pylist()[-1] == 5_000


def test_another_declaration_than_the_runs_is_refused(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    shop.yaml.write_text(shop.yaml.read_text().replace("attribution_days: 1", "attribution_days: 2"))
    with pytest.raises(ValueError, match=r"the declaration of shop must be the one that .* was made with"):
        bring_day(home, UNTIL, NEXT, SILENT)


def test_event_log_reads_appended_files_as_any_other(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    bring_day(home, UNTIL, NEXT, SILENT)
    log = EventLog(home.log.path)
    assert log.days()[-1] == date(2024, 1, 8)
    assert log.impressions(UNTIL, NEXT).num_rows == shop.rows("impressions", 7).num_rows


def _with_id(rows: pa.Table, ids: list[int]) -> pa.Table:
    return rows.set_column(rows.column_names.index("impression_id"), "impression_id", pa.array(ids))


def _with_user(rows: pa.Table, user: int) -> pa.Table:
    return rows.set_column(rows.column_names.index("user_id"), "user_id", pa.array([user] * rows.num_rows))
