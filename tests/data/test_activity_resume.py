"""Continuing: day by day, after a kill, after a change, always the same tables."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.contract import ENTITIES
from tests.data.activity_logs import (
    CUTOFF,
    DAY,
    MANIFEST,
    WRITTEN,
    Conversion,
    Impression,
    Log,
    build,
    config,
    days,
    row,
    snapshot,
    snapshots,
)
from trainers.data.activity import ActivityBuilder, ActivityConfig

CUTOFFS = days(CUTOFF - 4 * DAY, 5)
SHORT = dataclasses.replace(MANIFEST, windows_days=(1, 3))
LATER = datetime(2024, 4, 1, tzinfo=UTC)


def random_log(seed: int, num_impressions: int = 300) -> Log:
    """Seeded impressions over 15 days with repeated moments, null labels and later conversions."""
    draw = np.random.default_rng(seed)
    first = CUTOFF - 15 * DAY
    impressions = [
        Impression(
            impression_id=i,
            at=first + int(draw.integers(15 * 48)) * timedelta(minutes=30),
            user=int(draw.integers(12)),
            pin=int(draw.integers(20)),
            surface=str(draw.choice(["home", "search"])),
            click=[None, 0, 1][draw.integers(3)],
            like=[None, 0, 0, 1][draw.integers(4)],
        )
        for i in range(num_impressions)
    ]
    converted = [impressions[i] for i in draw.integers(num_impressions, size=num_impressions // 5)]
    conversions = [
        Conversion(
            impression_id=shown.impression_id,
            at=shown.at + int(draw.integers(1, 400)) * timedelta(minutes=30),
            user=shown.user,
            pin=shown.pin,
        )
        for shown in converted
    ]
    return Log(impressions=impressions, conversions=conversions)


@pytest.fixture
def settings(tmp_path: Path) -> ActivityConfig:
    made = config(tmp_path, manifest=SHORT, retention_days=3)
    random_log(0).write(made.event_log)
    return made


def _assert_same(left: ActivityConfig, right: ActivityConfig, cutoffs: list[datetime]) -> None:
    expected = snapshots(right, cutoffs)
    for at, table in snapshots(left, cutoffs).items():
        assert table.equals(expected[at]), at


@pytest.mark.parametrize("seed", range(3))
def test_snapshots_are_equal_when_built_day_by_day_and_each_from_scratch(tmp_path: Path, seed: int) -> None:
    log = random_log(seed)
    continued = config(tmp_path / "continued", manifest=SHORT, retention_days=3)
    log.write(continued.event_log)
    for cutoff in CUTOFFS:
        assert build(continued, [cutoff]) == [cutoff]

    for cutoff in CUTOFFS:
        fresh = dataclasses.replace(continued, offline=tmp_path / f"{cutoff}", state=tmp_path / f"{cutoff}" / "state")
        build(fresh, [cutoff])
        _assert_same(continued, fresh, [cutoff])


def test_build_writes_nothing_when_everything_is_up_to_date(settings: ActivityConfig) -> None:
    assert build(settings, CUTOFFS) == CUTOFFS
    before = snapshots(settings, CUTOFFS)

    assert build(settings, CUTOFFS, written=LATER) == []
    assert all(table.equals(before[at]) for at, table in snapshots(settings, CUTOFFS).items())


def test_build_adds_only_the_new_day(settings: ActivityConfig) -> None:
    build(settings, CUTOFFS[:-1])

    assert build(settings, CUTOFFS, written=LATER) == [CUTOFF]
    assert row(settings, "user", 1, CUTOFFS[0])["created_timestamp"] == WRITTEN
    assert set(snapshot(settings, "user")["created_timestamp"].to_pylist()) == {LATER}


def _lose_snapshot(settings: ActivityConfig) -> None:
    settings.snapshot_path("pin", CUTOFFS[2]).unlink()


def _lose_marker(settings: ActivityConfig) -> None:
    settings.marker_path(CUTOFFS[2]).unlink()


def _lose_last_days(settings: ActivityConfig) -> None:
    for cutoff in CUTOFFS[3:]:
        settings.marker_path(cutoff).unlink()
        settings.state_path("totals", "pin", cutoff).unlink()
        settings.state_path("sequence", "user", cutoff).unlink()
        settings.snapshot_path("user", cutoff).unlink()


def _lose_a_state_file(settings: ActivityConfig) -> None:
    settings.state_path("daily", "user", CUTOFFS[1]).unlink()


def _lose_the_state_folder(settings: ActivityConfig) -> None:
    shutil.rmtree(settings.state)


def _leave_half_written_files(settings: ActivityConfig) -> None:
    _lose_last_days(settings)
    for path in (settings.snapshot_path("user", CUTOFF), settings.state_path("totals", "pin", CUTOFFS[3])):
        path.with_name(f".{path.name}.partial").write_bytes(b"PAR1 and then the process was killed")
    (settings.state / "spill").mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        _lose_snapshot,
        _lose_marker,
        _lose_last_days,
        _lose_a_state_file,
        _lose_the_state_folder,
        _leave_half_written_files,
    ],
)
def test_build_restores_the_same_snapshots_after_damage(
    settings: ActivityConfig, tmp_path: Path, damage: Callable[[ActivityConfig], None]
) -> None:
    intact = dataclasses.replace(settings, offline=tmp_path / "intact", state=tmp_path / "intact_state")
    build(intact, CUTOFFS)
    build(settings, CUTOFFS)
    damage(settings)

    assert build(settings, CUTOFFS)
    _assert_same(settings, intact, CUTOFFS)
    assert not list(settings.offline.rglob(".*"))
    assert not (settings.state / "spill").exists()


def test_build_continues_where_it_was_interrupted(settings: ActivityConfig, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if (done, total) == (2, 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ActivityBuilder(settings).build(CUTOFFS, created_timestamp=WRITTEN, progress=interrupt)

    assert build(settings, CUTOFFS) == CUTOFFS[2:]
    intact = dataclasses.replace(settings, offline=tmp_path / "intact", state=tmp_path / "intact_state")
    build(intact, CUTOFFS)
    _assert_same(settings, intact, CUTOFFS)


def test_build_reports_progress_per_cutoff(settings: ActivityConfig) -> None:
    calls: list[tuple[int, int]] = []
    ActivityBuilder(settings).build(
        CUTOFFS[:3], created_timestamp=WRITTEN, progress=lambda done, total: calls.append((done, total))
    )

    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_build_redoes_the_days_that_a_changed_partition_can_affect(settings: ActivityConfig) -> None:
    build(settings, CUTOFFS)
    late = Impression(impression_id=10_000, at=CUTOFFS[2], user=500, pin=900)
    (settings.event_log / "impressions" / f"date={late.at.date()}" / "part-0.parquet").unlink()
    Log(impressions=[late]).write(settings.event_log)

    assert build(settings, CUTOFFS) == CUTOFFS[3:]
    assert row(settings, "user", 500, CUTOFFS[3])["impressions_ever"] == 1


def test_build_starts_afresh_when_settings_change(settings: ActivityConfig, tmp_path: Path) -> None:
    build(settings, CUTOFFS)
    changed = dataclasses.replace(settings, manifest=dataclasses.replace(MANIFEST, windows_days=(2,)))

    assert build(changed, CUTOFFS[3:]) == CUTOFFS[3:]
    assert sorted(path.name for path in (settings.offline / "user_activity").iterdir()) == [
        settings.snapshot_path("user", cutoff).name for cutoff in CUTOFFS[3:]
    ]
    fresh = dataclasses.replace(changed, offline=tmp_path / "fresh", state=tmp_path / "fresh_state")
    build(fresh, CUTOFFS[3:])
    _assert_same(changed, fresh, CUTOFFS[3:])


@pytest.mark.parametrize(
    ("cutoffs", "message"),
    [
        ([CUTOFF, CUTOFF + 2 * DAY], "one day apart"),
        ([CUTOFF, CUTOFF - DAY], "one day apart"),
        ([CUTOFF.replace(tzinfo=None)], "must be UTC-aware"),
    ],
)
def test_build_rejects_cutoffs_when_not_daily_and_aware(
    settings: ActivityConfig, cutoffs: list[datetime], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(settings, cutoffs)


def test_build_names_the_label_that_the_log_lacks(settings: ActivityConfig) -> None:
    unknown = dataclasses.replace(
        settings, manifest=dataclasses.replace(MANIFEST, labels=("click", "share"), surface_labels=("click",))
    )

    with pytest.raises(ValueError, match="share"):
        build(unknown, CUTOFFS)


def test_build_fails_when_the_log_is_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="headwater ingest"):
        build(config(tmp_path), CUTOFFS)


def test_snapshot_is_empty_when_nothing_happened_before_the_cutoff(tmp_path: Path) -> None:
    settings = config(tmp_path)
    Log(impressions=[Impression(impression_id=1, at=CUTOFF)]).write(settings.event_log)
    build(settings, days(CUTOFF, 2))

    for entity in ENTITIES:
        assert snapshot(settings, entity, CUTOFF).num_rows == 0
        assert snapshot(settings, entity, CUTOFF + DAY).num_rows == 1
