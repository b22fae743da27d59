"""The sequence of engaged Pins against sequences worked by hand."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.activity_logs import CUTOFF, DAY, Impression, Log, build, config, days, row, snapshot, snapshots
from trainers.data import activity_sequence
from trainers.data.activity import ActivityConfig

HOUR = timedelta(hours=1)


@pytest.fixture(params=["from_scratch", "day_by_day"])
def cutoffs(request: pytest.FixtureRequest) -> list[object]:
    return [CUTOFF] if request.param == "from_scratch" else list(days(CUTOFF - 4 * DAY, 5))


def _built(folder: Path, log: Log, cutoffs: list[object]) -> ActivityConfig:
    settings = config(folder)
    log.write(settings.event_log)
    build(settings, cutoffs)  # type: ignore[arg-type]
    return settings


def test_sequence_holds_engaged_impressions_oldest_first(tmp_path: Path, cutoffs: list[object]) -> None:
    log = Log(
        impressions=(
            Impression(impression_id=3, at=CUTOFF - 30 * HOUR, pin=30, surface="search", click=1, like=1),
            Impression(impression_id=1, at=CUTOFF - 49 * HOUR, pin=10, surface="home", click=1),
            Impression(impression_id=4, at=CUTOFF - 90 * 60 * timedelta(seconds=1), pin=40, surface="home", like=1),
            Impression(impression_id=2, at=CUTOFF - 40 * HOUR, pin=20, click=0, like=None),
        )
    )
    found = row(_built(tmp_path, log, cutoffs), "user", 1)

    assert found["recent_pins"] == [10, 30, 40]
    assert found["recent_actions"] == [0b01, 0b11, 0b10]
    assert found["recent_surfaces"] == ["home", "search", "home"]
    assert found["recent_ages_hours"] == [49.0, 30.0, 1.5]


def test_sequence_keeps_the_newest_when_there_are_more(tmp_path: Path, cutoffs: list[object]) -> None:
    rows = [Impression(impression_id=i, at=CUTOFF - (90 - 20 * i) * HOUR, pin=i, click=1) for i in range(5)]

    assert row(_built(tmp_path, Log(impressions=rows), cutoffs), "user", 1)["recent_pins"] == [2, 3, 4]


def test_sequence_breaks_ties_in_time_by_impression_id(tmp_path: Path, cutoffs: list[object]) -> None:
    rows = [Impression(impression_id=i, at=CUTOFF - HOUR, pin=100 - i, click=1) for i in (5, 2, 9, 7, 1)]

    assert row(_built(tmp_path, Log(impressions=rows), cutoffs), "user", 1)["recent_pins"] == [95, 93, 91]


def test_sequence_is_empty_when_nothing_was_engaged(tmp_path: Path, cutoffs: list[object]) -> None:
    log = Log(impressions=[Impression(impression_id=1, at=CUTOFF - HOUR, click=0, like=None)])
    found = row(_built(tmp_path, log, cutoffs), "user", 1)

    assert [found[f"recent_{name}"] for name in ("pins", "actions", "surfaces", "ages_hours")] == [[], [], [], []]


def test_sequence_survives_days_without_engagement(tmp_path: Path) -> None:
    log = Log(
        impressions=(
            Impression(impression_id=1, at=CUTOFF - 4 * DAY, pin=10, click=1),
            Impression(impression_id=2, at=CUTOFF - 2 * DAY, user=2, pin=11, click=1),
        )
    )
    settings = _built(tmp_path, log, [*days(CUTOFF - 3 * DAY, 4)])

    assert snapshot(settings, "user")["recent_pins"].to_pylist() == [[10], [11]]
    assert row(settings, "user", 1)["recent_ages_hours"] == [96.0]


def test_sequence_is_the_same_when_users_are_put_together_in_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Impression(impression_id=i, at=CUTOFF - (1000 - i) * HOUR / 6, user=i % 7, pin=i % 11, click=i % 2)
        for i in range(1000)
    ]
    whole = _built(tmp_path / "whole", Log(impressions=rows), [CUTOFF - DAY, CUTOFF])
    monkeypatch.setattr(activity_sequence, "SLOTS_PER_MB", 1)
    bucketed = _built(tmp_path / "bucketed", Log(impressions=rows), [CUTOFF - DAY, CUTOFF])

    expected = snapshots(whole, [CUTOFF - DAY, CUTOFF])
    assert expected[("user", CUTOFF)].num_rows == 7
    for at, table in snapshots(bucketed, [CUTOFF - DAY, CUTOFF]).items():
        assert isinstance(table, pa.Table)
        assert table.equals(expected[at])
