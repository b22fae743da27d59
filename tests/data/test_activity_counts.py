"""Counts, windows, rates and recency against numbers worked by hand."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo.contract import ENTITIES, RepoManifest, activity_fields, join_key
from tests.data.activity_logs import (
    CUTOFF,
    DAY,
    MANIFEST,
    MICROSECOND,
    MOMENT,
    WRITTEN,
    Conversion,
    Impression,
    Log,
    build,
    config,
    days,
    row,
    snapshot,
)
from trainers.data.activity import ActivityConfig

HAND_WORKED = Log(
    impressions=(
        Impression(impression_id=1, at=CUTOFF - 10 * DAY, user=1, pin=10, click=1, like=None),
        Impression(impression_id=2, at=CUTOFF - 3 * DAY, user=1, pin=11, click=0, like=1),
        Impression(impression_id=3, at=CUTOFF - DAY, user=1, pin=10, click=1, like=0),
        Impression(impression_id=4, at=CUTOFF - MICROSECOND, user=1, pin=10, click=0, like=None),
        Impression(impression_id=5, at=CUTOFF, user=1, pin=10, click=1, like=1),
        Impression(impression_id=6, at=CUTOFF - 2 * DAY, user=2, pin=10, click=0, like=None),
    ),
    conversions=(
        Conversion(impression_id=1, at=CUTOFF - timedelta(hours=12), user=1, pin=10),
        Conversion(impression_id=2, at=CUTOFF, user=1, pin=11),
    ),
)
# Before the cut-off: 5 impressions, click 2 of 5, like 1 of 2, one purchase; so the priors are 0.4, 0.5 and 0.2.


@pytest.fixture(scope="module", params=["from_scratch", "day_by_day"])
def hand_worked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ActivityConfig:
    settings = config(tmp_path_factory.mktemp("activity"))
    HAND_WORKED.write(settings.event_log)
    build(settings, [CUTOFF] if request.param == "from_scratch" else days(CUTOFF - 11 * DAY, 12))
    return settings


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("impressions_1d", 2),
        ("impressions_7d", 3),
        ("impressions_ever", 4),
        ("click_1d", 1),
        ("click_7d", 1),
        ("click_ever", 2),
        ("like_1d", 0),
        ("like_7d", 1),
        ("like_ever", 1),
        ("purchase_1d", 1),
        ("purchase_7d", 1),
        ("purchase_ever", 1),
        ("click_rate_1d", 9 / 22),
        ("click_rate_7d", 9 / 23),
        ("click_rate_ever", 10 / 24),
        ("like_rate_1d", 10 / 21),
        ("like_rate_7d", 11 / 22),
        ("like_rate_ever", 11 / 22),
        ("purchase_rate_1d", 5 / 22),
        ("purchase_rate_7d", 5 / 23),
        ("purchase_rate_ever", 5 / 24),
        ("hours_since_impression", 1 / 3.6e9),
        ("hours_since_click", 24.0),
        ("hours_since_like", 72.0),
        ("hours_since_purchase", 12.0),
    ],
)
def test_user_activity_equals_hand_worked_value(hand_worked: ActivityConfig, feature: str, expected: float) -> None:
    assert row(hand_worked, "user", 1)[feature] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("impressions_1d", 2),
        ("impressions_7d", 3),
        ("impressions_ever", 4),
        ("click_ever", 2),
        ("like_ever", 0),
        ("purchase_1d", 1),
        ("click_rate_7d", 9 / 23),
        ("like_rate_ever", 10 / 21),
        ("hours_since_click", 24.0),
        ("hours_since_like", None),
    ],
)
def test_pin_activity_equals_hand_worked_value(hand_worked: ActivityConfig, feature: str, expected: float) -> None:
    assert row(hand_worked, "pin", 10)[feature] == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_rate_is_the_prior_when_there_are_no_impressions_in_the_window(hand_worked: ActivityConfig) -> None:
    quiet = row(hand_worked, "user", 2)

    assert (quiet["impressions_1d"], quiet["click_1d"]) == (0, 0)
    assert (quiet["click_rate_1d"], quiet["like_rate_1d"], quiet["purchase_rate_1d"]) == (0.4, 0.5, 0.2)


def test_recency_is_null_when_it_never_happened(hand_worked: ActivityConfig) -> None:
    quiet = row(hand_worked, "user", 2)

    assert quiet["hours_since_impression"] == 48.0
    assert quiet["hours_since_click"] is None
    assert quiet["hours_since_purchase"] is None


def test_rate_is_zero_when_a_label_was_never_defined(tmp_path: Path) -> None:
    settings = config(tmp_path)
    Log(impressions=[Impression(impression_id=1, at=CUTOFF - DAY, like=None)]).write(settings.event_log)
    build(settings, [CUTOFF])

    assert row(settings, "user", 1)["like_rate_ever"] == 0.0


@pytest.mark.parametrize("entity", ENTITIES)
def test_snapshot_has_the_contract_s_columns_and_types(hand_worked: ActivityConfig, entity: str) -> None:
    types = {
        "int64": pa.int64(),
        "float": pa.float64(),
        "int64_list": pa.list_(pa.int64()),
        "float_list": pa.list_(pa.float32()),
        "string_list": pa.list_(pa.string()),
    }
    expected = {join_key(entity): pa.int64(), "event_timestamp": MOMENT, "created_timestamp": MOMENT}
    expected |= {name: types[kind] for name, kind in activity_fields(MANIFEST, entity).items()}

    schema = snapshot(hand_worked, entity).schema

    assert schema.names == list(expected)
    for name, kind in expected.items():
        actual = schema.field(name).type
        assert (pa.list_(actual.value_type) if pa.types.is_list(actual) else actual) == kind, name


def test_snapshot_is_stamped_with_cutoff_plus_publish_delay(hand_worked: ActivityConfig) -> None:
    stamped = row(hand_worked, "pin", 11)

    assert stamped["event_timestamp"] == CUTOFF + timedelta(hours=1)
    assert stamped["created_timestamp"] == WRITTEN


@pytest.mark.parametrize("entity", ENTITIES)
def test_snapshot_is_sorted_by_entity_key(tmp_path: Path, entity: str) -> None:
    settings = config(tmp_path)
    keys = [7, 3, 2**40, 1, 5]
    Log(impressions=[Impression(impression_id=k, at=CUTOFF - DAY, user=k, pin=k) for k in keys]).write(
        settings.event_log
    )
    build(settings, [CUTOFF])

    assert snapshot(settings, entity)[join_key(entity)].to_pylist() == sorted(keys)


def test_entity_gets_no_row_when_its_activity_is_older_than_retention(tmp_path: Path) -> None:
    settings = config(tmp_path, retention_days=2)
    Log(
        impressions=(
            Impression(impression_id=1, at=CUTOFF - 2 * DAY, user=1),
            Impression(impression_id=2, at=CUTOFF - 2 * DAY - MICROSECOND, user=2),
        )
    ).write(settings.event_log)
    build(settings, [CUTOFF])

    assert snapshot(settings, "user")["user_id"].to_pylist() == [1]


def test_entity_keeps_its_past_when_it_returns_after_retention(tmp_path: Path) -> None:
    settings = config(tmp_path, retention_days=2)
    Log(
        impressions=(
            Impression(impression_id=1, at=CUTOFF - 9 * DAY, click=1),
            Impression(impression_id=2, at=CUTOFF - 1 * DAY),
            Impression(impression_id=3, at=CUTOFF - 5 * DAY, user=2),
        )
    ).write(settings.event_log)
    build(settings, days(CUTOFF - 9 * DAY, 10))

    assert snapshot(settings, "user", CUTOFF - 5 * DAY)["user_id"].to_pylist() == []
    returned = row(settings, "user", 1)
    assert (returned["impressions_ever"], returned["click_ever"], returned["recent_pins"]) == (2, 1, [10])


def test_conversion_counts_as_activity_on_the_day_it_arrives(tmp_path: Path) -> None:
    settings = config(tmp_path, retention_days=2)
    Log(
        impressions=[Impression(impression_id=1, at=CUTOFF - 9 * DAY)],
        conversions=[Conversion(impression_id=1, at=CUTOFF - DAY)],
    ).write(settings.event_log)
    build(settings, days(CUTOFF - DAY, 2))

    assert snapshot(settings, "user", CUTOFF - DAY).num_rows == 0
    assert row(settings, "user", 1)["purchase_1d"] == 1


def test_conversion_of_an_undeclared_kind_is_no_activity(tmp_path: Path) -> None:
    settings = config(tmp_path, retention_days=2)
    Log(
        impressions=[Impression(impression_id=1, at=CUTOFF - 9 * DAY)],
        conversions=[Conversion(impression_id=1, at=CUTOFF - DAY, kind="refund")],
    ).write(settings.event_log)
    build(settings, [CUTOFF])

    assert snapshot(settings, "user").num_rows == 0


def test_windows_follow_the_data_day_when_it_does_not_start_at_midnight(tmp_path: Path) -> None:
    settings = config(tmp_path)
    cutoff = datetime(2024, 1, 11, tzinfo=timezone(timedelta(hours=8)))
    Log(
        impressions=(
            Impression(impression_id=1, at=cutoff - DAY - MICROSECOND),
            Impression(impression_id=2, at=cutoff - DAY),
            Impression(impression_id=3, at=cutoff - timedelta(hours=3)),
            Impression(impression_id=4, at=cutoff),
        )
    ).write(settings.event_log)
    build(settings, days(cutoff - 2 * DAY, 3))

    found = row(settings, "user", 1, cutoff)
    assert (found["impressions_1d"], found["impressions_7d"]) == (2, 3)
    assert settings.snapshot_path("user", cutoff).name == "date=2024-01-10.parquet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("click", "click")}, "distinct names"),
        ({"labels": ("click", "impressions")}, "distinct names"),
        ({"labels": ("click", "click_rate")}, "distinct names"),
        ({"labels": ("click", "click_7d")}, "distinct names"),
        ({"labels": ("kind",)}, "distinct names"),
        ({"windows_days": (7, 7)}, "distinct names"),
        ({"windows_days": (0, 7)}, "at least 1"),
        ({"sequence_length": 0}, "at least 1"),
        ({"labels": tuple(f"label_{i}" for i in range(63))}, "at most 62"),
    ],
)
def test_config_rejects_a_manifest_that_cannot_be_counted(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    manifest = RepoManifest(
        **{
            "dataset": "tiny",
            "labels": ("click",),
            "conversions": ("purchase",),
            "windows_days": (1, 7),
            "sequence_length": 3,
            "user_attributes": (),
            "pin_attributes": (),
        }
        | change  # type: ignore[arg-type]
    )

    with pytest.raises(ValueError, match=message):
        config(tmp_path, manifest=manifest)


@pytest.mark.parametrize("limit", ["2", "2 GB", "1.5GB", "0GB", "all"])
def test_config_rejects_a_memory_limit_without_whole_units(tmp_path: Path, limit: str) -> None:
    with pytest.raises(ValueError, match="whole number of MB or GB"):
        config(tmp_path, memory_limit=limit)
