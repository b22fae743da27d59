"""The daily refresh: what it makes, in which order, and that it can be asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.contract import ENTITIES, EVENT_TIMESTAMP
from feature_repo.layout import open_store
from feature_repo.versions import VersionState
from tests.integration.runs import assert_equal_results, headwater, results
from tests.life.shop import TRAINED, UNTIL, Shop, trained
from trainers.data.leak_gate import check_days_for_leaks
from trainers.data.leaks import LeakError
from trainers.data.prepare import OFFLINE
from trainers.life import day as day_module
from trainers.life.home import Home, embedding_version
from trainers.life.refresh import planned, refresh
from trainers.progress import SILENT, SilentProgress
from trainers.run_lock import RunLockedError, run_lock
from trainers.upstream.aggregate import moving_average
from trainers.upstream.vector_files import read_frame

DAY = timedelta(days=1)
KEYS = ("ctr_v1", "cvr_v1")
AS_OF = date(2024, 1, 10)


@pytest.fixture(scope="module")
def refreshed(
    copied: Callable[[Path], tuple[Home, Shop]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Home, Shop]:
    """The shop two days later; tests only read it."""
    home, shop = copied(tmp_path_factory.mktemp("refreshed"))
    shop.show(9)
    refresh(home, AS_OF, SILENT)
    return home, shop


def test_refresh_catches_up_day_by_day(refreshed: tuple[Home, Shop]) -> None:
    home, _ = refreshed
    for key in KEYS:
        days = home.catalogue.days(key, UNTIL)
        assert [(day.cutoff, day.state) for day in days] == [(UNTIL + n * DAY, "visible") for n in range(3)]
        assert home.catalogue.version(key).data_until == UNTIL + 2 * DAY
        assert all(day.seconds > 0.0 and day.peak_mb > 0.0 for day in days[1:])
    assert not list(home.run.glob("refreshing/*"))


def test_refresh_again_changes_nothing(refreshed: tuple[Home, Shop]) -> None:
    home, _ = refreshed
    before = {file: file.stat().st_mtime_ns for file in home.run.rglob("*.parquet")}
    transitions = len(home.catalogue.transitions())
    assert refresh(home, AS_OF, SILENT) == []
    assert {file: file.stat().st_mtime_ns for file in home.run.rglob("*.parquet")} == before
    assert len(home.catalogue.transitions()) == transitions


def test_refreshed_days_have_the_raw_vectors_of_a_longer_walk(
    refreshed: tuple[Home, Shop], first_shop: Shop, tmp_path: Path
) -> None:
    home, _ = refreshed
    longer = first_shop.copy(tmp_path / "longer")
    longer.show(9)
    longer.yaml.write_text(longer.yaml.read_text().replace(UNTIL.isoformat(), (UNTIL + 2 * DAY).isoformat()))
    whole = trained(longer, tmp_path / "run", TRAINED[: TRAINED.index("train") + 1])
    for key in KEYS:
        folders = [home.folder(key) / "daily", whole.folder(key) / "daily"]
        names = [sorted(str(file.relative_to(folder)) for file in folder.rglob("*.parquet")) for folder in folders]
        assert names[0] == names[1]
    assert results(home.run, *(f"upstream/{key}/daily" for key in KEYS)) == results(
        whole.run, *(f"upstream/{key}/daily" for key in KEYS)
    )
    activity = ("feature_repo/data/offline/user_activity", "feature_repo/data/offline/pin_activity")
    assert results(home.run, *activity) == results(whole.run, *activity)


def test_refreshed_snapshot_averages_aligned_vectors_with_the_day_before(refreshed: tuple[Home, Shop]) -> None:
    from trainers.life.day_check import published_frame

    home, _ = refreshed
    record = home.catalogue.version("ctr_v1")
    version, cutoff = embedding_version(record), UNTIL + DAY
    today = published_frame(home, record, cutoff)
    for entity in ENTITIES:
        past, snapshot = (
            read_frame(lambda e, c=when: home.snapshot(version, e, c), version.dim)[entity]  # type: ignore[misc]
            for when in (UNTIL, cutoff)
        )
        keys, vectors = moving_average(past, today[entity], 0.8)
        assert np.array_equal(snapshot[0], keys)
        assert np.array_equal(snapshot[1], vectors)
        np.testing.assert_allclose(np.linalg.norm(snapshot[1], axis=1), 1.0, atol=1e-5)


def test_refreshed_vectors_are_read_through_feast_from_their_publication_on(refreshed: tuple[Home, Shop]) -> None:
    home, _ = refreshed
    record = home.catalogue.version("ctr_v1")
    newest, before = (home.snapshot(embedding_version(record), "user", UNTIL + n * DAY) for n in (2, 1))
    (key, vector), old = ((_first(newest)), _first(before)[1])
    store, usable = open_store(home.repo_dir), UNTIL + 2 * DAY + home.log.spec.publish_delay
    online = store.get_online_features(["user_embedding_ctr_v1:embedding"], [{"user_id": key}]).to_dict()
    assert online["embedding"] == [pytest.approx(vector)]
    frame = _entity_frame(key, [usable - timedelta(seconds=1), usable])
    joined = store.get_historical_features(frame, ["user_embedding_ctr_v1:embedding"]).to_df()
    found = {row[EVENT_TIMESTAMP]: row["embedding"] for _, row in joined.iterrows()}
    assert found[usable] == pytest.approx(vector)
    assert found[usable - timedelta(seconds=1)] == pytest.approx(old)


def test_snapshot_that_knows_the_future_is_found(home_and_shop: tuple[Home, Shop]) -> None:
    home, _ = home_and_shop
    version = embedding_version(home.catalogue.version("ctr_v1"))
    store, day = open_store(home.repo_dir), [UNTIL - DAY]
    assert check_days_for_leaks(home.log, store, home.repo_dir, [version], day, SILENT) == {"leak_checked": 30}
    file = home.snapshot(version, "pin", UNTIL - DAY)
    table = pq.ParquetFile(file).read()
    early = pc.subtract(table[EVENT_TIMESTAMP], pa.scalar(DAY, pa.duration("us")))
    pq.write_table(table.set_column(table.column_names.index(EVENT_TIMESTAMP), EVENT_TIMESTAMP, early), file)
    with pytest.raises(LeakError, match=r"pin_embedding_ctr_v1: event_timestamp must be at least 1:00:00 after"):
        check_days_for_leaks(home.log, store, home.repo_dir, [version], day, SILENT)


def test_nothing_of_a_day_is_read_before_every_version_has_passed(
    home_and_shop: tuple[Home, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, shop = home_and_shop
    shop.show(8)

    def stop(self: object) -> None:
        del self
        raise KeyboardInterrupt

    monkeypatch.setattr(day_module.DayRefresh, "_publish", stop)
    with pytest.raises(KeyboardInterrupt):
        refresh(home, date(2024, 1, 9), SILENT)
    assert not list(home.offline.glob("*_embedding_*/date=2024-01-09.parquet"))
    for key in KEYS:
        assert home.newest_day(key).cutoff == UNTIL
        assert [day.state for day in home.catalogue.days(key, UNTIL + DAY)] == ["checked"]
    assert planned(home, date(2024, 1, 9))[0].begun
    monkeypatch.undo()
    refresh(home, date(2024, 1, 9), SILENT)
    assert home.newest_day("cvr_v1").cutoff == UNTIL + DAY


def test_refresh_goes_on_after_the_substep_in_which_it_was_stopped(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    stages = ("check and append the day", "inputs of active entities", "align, average and check", "materialize")
    for stage in stages:
        with pytest.raises(KeyboardInterrupt):
            refresh(home, date(2024, 1, 9), _Stopping(stage))
    (outcome,) = refresh(home, date(2024, 1, 9), SILENT)
    assert [each.name for each in outcome.substeps] == [*day_module.SUBSTEPS]
    assert home.newest_day("ctr_v1").cutoff == UNTIL + DAY


class _Stopping(SilentProgress):
    """Stops where a stage opens."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    @contextmanager
    def stage(self, name: str, total: int | None = None):  # type: ignore[no-untyped-def]
        """Open a stage."""
        if name == self._stage:
            raise KeyboardInterrupt
        with super().stage(name, total) as stage:
            yield stage


def test_refresh_is_refused_while_another_process_works_in_the_run(first_home: Home) -> None:
    with run_lock(first_home.run), pytest.raises(RunLockedError, match="one process at a time"):
        refresh(first_home, date(2024, 1, 9), SILENT)


def test_refresh_refuses_when_activity_would_be_computed_otherwise(home_and_shop: tuple[Home, Shop]) -> None:
    """As after an upgrade of Headwater: starting afresh would delete the activity of every day that is there."""
    home, shop = home_and_shop
    shop.show(8)
    file = home.run / "features" / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"windows_days": [1]}))
    before = sorted(home.offline.rglob("*.parquet"))
    with pytest.raises(ValueError, match=r"their windows_days changed with the recipe or with Headwater"):
        refresh(home, date(2024, 1, 9), SILENT)
    assert sorted(home.offline.rglob("*.parquet")) == before


def test_refresh_refuses_a_date_before_the_newest_day(first_home: Home) -> None:
    expected = r"--as-of must be 2024-01-08, the newest day there is, or later \(got 2024-01-07\)"
    with pytest.raises(ValueError, match=expected):
        planned(first_home, date(2024, 1, 7))


def test_version_that_was_not_in_a_begun_day_gets_it_before_the_next(
    home_and_shop: tuple[Home, Shop],
) -> None:
    home, _ = home_and_shop
    space = day_module.workspace_of(home, UNTIL + DAY)
    space.note("versions", ["ctr_v1"])
    assert [(day.versions, day.begun) for day in planned(home, date(2024, 1, 9))] == [(KEYS, False)]
    space.do("append", dict)
    days = [(f"{day.cutoff:%d}", day.versions, day.begun) for day in planned(home, AS_OF)]
    assert days == [("09", ("ctr_v1",), True), ("09", ("cvr_v1",), False), ("10", KEYS, False)]


def test_refresh_leaves_out_what_nothing_reads_any_more(home_and_shop: tuple[Home, Shop]) -> None:
    home, _ = home_and_shop
    home.catalogue.retire_version("cvr_v1", who="someone@here", why="no longer wanted")
    assert home.catalogue.version("cvr_v1").state == VersionState.RETIRED
    assert planned(home, date(2024, 1, 9))[0].versions == ("ctr_v1",)


def test_command_plans_refreshes_and_tells_the_cost(
    home_and_shop: tuple[Home, Shop], refreshed: tuple[Home, Shop]
) -> None:
    home, shop = home_and_shop
    shop.show(8)
    arguments = ("refresh", "--run", home.run, "--as-of", "2024-01-09")
    assert headwater(*arguments, "--dry-run").stdout == "2024-01-09 would be made for ctr_v1, cvr_v1\n"
    found = json.loads(headwater(*arguments, "--json", "--quiet").stdout)
    (day,) = found["days"]
    assert (day["day"], day["versions"], day["release"]) == ("2024-01-09", list(KEYS), None)
    assert [each["name"] for each in day["substeps"]] == [*day_module.SUBSTEPS]
    assert all(each["seconds"] >= 0.0 and each["peak_mb"] > 0.0 for each in day["substeps"])
    assert json.loads((home.run / "refreshes" / "date=2024-01-09.json").read_text()) == day
    assert headwater(*arguments).stdout == "up to date: every version has the day 2024-01-09\n"
    # The other run had the raw data of a day more when it made this one.
    ours, theirs = (results(each.run, OFFLINE) for each in (home, refreshed[0]))
    of_the_day = [name for name in ours if "date=2024-01-09" in name]
    assert len(of_the_day) == 6
    assert_equal_results(*({name: found[name] for name in of_the_day} for found in (ours, theirs)))


def test_command_names_a_date_that_is_none(first_home: Home) -> None:
    result = headwater("refresh", "--run", first_home.run, "--as-of", "tomorrow", code=2)
    assert "--as-of must be a date such as 2024-01-31 (got 'tomorrow')" in result.stderr


def _first(file: Path) -> tuple[int, list[float]]:
    row = pq.ParquetFile(file).read().slice(0, 1).to_pylist()[0]
    return row["user_id"], row["embedding"]


def _entity_frame(key: int, moments: list[datetime]):  # type: ignore[no-untyped-def]
    import pandas as pd

    return pd.DataFrame({"user_id": [key] * len(moments), EVENT_TIMESTAMP: [each.astimezone(UTC) for each in moments]})
