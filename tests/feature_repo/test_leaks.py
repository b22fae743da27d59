"""Planted leaks are found, honest features are not accused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.layout import apply, create_repo
from tests.feature_repo.repos import MANIFEST, MOMENT, embedding_schema, hours, write_all, write_snapshot
from trainers.data.frames import point_in_time_frame
from trainers.data.leak_statistics import roc_auc
from trainers.data.leaks import LeakError, assert_no_leak, check_joins, check_labels, check_stamps, leak_check

DELAY = timedelta(hours=1)
SERVICE = "ranking__ctr_v1"
KUAIRAND = Path(__file__).parents[3] / "shared" / "data" / "kuairand_pure"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    create_repo(tmp_path, MANIFEST)
    apply(tmp_path)
    write_all(tmp_path)
    return tmp_path


def rows_at(*moments: float) -> pa.Table:
    num = len(moments)
    moment = pa.array([hours(value) for value in moments], MOMENT)
    return pa.table({"user_id": [1] * num, "pin_id": [10] * num, "event_timestamp": moment, "click": [0] * num})


def log_of(num_pins: int, rows_per_pin: int, seed: int = 0) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Impressions over two days whose Pins have true click rates; the rates and the Pin of each row."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(2, 3, num_pins)
    pins = rng.permutation(np.repeat(np.arange(num_pins), rows_per_pin))
    clicks = (rng.random(len(pins)) < rates[pins]).astype(np.int8)
    seconds = np.sort(rng.integers(0, 48 * 3600, len(pins)))
    moments = pa.array((np.int64(hours(0).timestamp()) + seconds) * 1_000_000).cast(MOMENT)
    table = pa.table({"user_id": pins % 7, "pin_id": pins, "event_timestamp": moments, "click": clicks})
    return table, rates, pins


def test_honest_frame_passes(repo: Path) -> None:
    frame = point_in_time_frame(repo, rows_at(2, 26, 30), SERVICE)
    assert leak_check(repo, frame, SERVICE, ["click"], DELAY) == []
    assert_no_leak(repo, frame, SERVICE, ["click"], DELAY)


def test_future_embedding_is_caught(repo: Path) -> None:
    """Vectors of a model that saw hour 24 to 48, stamped as usable at hour 25."""
    row = {"user_id": 1, "embedding": [1.0] * 4, "event_timestamp": hours(25), "created_timestamp": hours(25)}
    rows = [{**row, "data_cutoff": hours(48)}]
    write_snapshot(repo, "user_embedding_ctr_v1", "date=2024-03-02", embedding_schema("user"), rows)
    frame = point_in_time_frame(repo, rows_at(26), SERVICE)
    with pytest.raises(LeakError, match=r"user_embedding_ctr_v1: .* 1:00:00 after data_cutoff \(got -1 day, 1:00:00"):
        assert_no_leak(repo, frame, SERVICE, ["click"], DELAY)


def test_embedding_without_its_publish_delay_is_caught(repo: Path) -> None:
    found = check_stamps(repo, "pin_embedding_ctr_v1", timedelta(hours=2))
    assert [(item.view, item.feature, item.figure) for item in found] == [
        ("pin_embedding_ctr_v1", "data_cutoff", 3600.0),
        ("pin_embedding_ctr_v1", "data_cutoff", 3600.0),
    ]


def test_activity_stamped_before_its_day_is_caught(repo: Path) -> None:
    folder = repo / "data" / "offline" / "user_activity"
    (folder / "date=2024-03-01.parquet").rename(folder / "date=2024-03-09.parquet")
    found = check_stamps(repo, "user_activity", DELAY)
    assert [item.view for item in found] == ["user_activity"]
    assert "date=2024-03-09.parquet" in found[0].text


def test_row_joined_to_a_later_value_is_caught(repo: Path) -> None:
    frame = point_in_time_frame(repo, rows_at(2, 26), SERVICE)
    assert check_joins(repo, frame, "user_activity") == []
    place = frame.schema.get_field_index("user_activity__impressions_1d")
    later = frame.set_column(place, "user_activity__impressions_1d", pa.array([101, 101]))
    found = check_joins(repo, later, "user_activity")
    assert [(item.view, item.feature) for item in found] == [("user_activity", "impressions_1d")]
    assert "of user_id 1" in found[0].text


def test_label_in_disguise_is_caught() -> None:
    table, _, _ = log_of(200, 10)
    planted = pc.add(pc.multiply(table["click"].cast(pa.float64()), -3.0), 7.0)
    found = check_labels(table.append_column("user_activity__copy", planted), ["click"])
    assert [(item.check, item.view, item.feature, item.figure) for item in found] == [
        ("label_copy", "user_activity", "copy", 1.0)
    ]


def test_label_in_which_values_are_missing_is_caught() -> None:
    table, _, _ = log_of(200, 10)
    clicked = pc.equal(table["click"], 1)
    planted = pc.if_else(clicked, pa.scalar(None, pa.int64()), pa.scalar(5, pa.int64()))
    found = check_labels(table.append_column("pin_activity__hours", planted), ["click"])
    assert [item.check for item in found] == ["label_copy"]


def test_rate_over_the_labels_to_predict_is_caught() -> None:
    table, _, pins = log_of(300, 20)
    sums = np.bincount(pins, np.asarray(table["click"]))
    found = check_labels(table.append_column("pin_activity__rate", pa.array(sums[pins] / 20)), ["click"])
    assert [(item.check, item.view, item.feature) for item in found] == [("label_luck", "pin_activity", "rate")]
    assert found[0].figure == pytest.approx(1.0)


def test_true_rate_known_beforehand_is_not_accused() -> None:
    table, rates, pins = log_of(300, 20)
    assert check_labels(table.append_column("pin_activity__rate", pa.array(rates[pins])), ["click"]) == []


def test_rate_over_other_rows_than_the_frame_is_not_accused() -> None:
    """What an activity view holds: clicks on the same Pins, counted before."""
    table, rates, pins = log_of(300, 20)
    before = np.random.default_rng(5).binomial(20, rates) / 20
    assert check_labels(table.append_column("pin_activity__rate", pa.array(before[pins])), ["click"]) == []


def test_attributes_that_average_the_whole_period_are_asked_about() -> None:
    """A hundred times more impressions than ours on each Pin, over the whole period: what a service publishes."""
    table, rates, pins = log_of(300, 40)
    shown = np.random.default_rng(6).integers(2000, 4000, 300)
    clicked = np.random.default_rng(7).binomial(shown, rates)
    for name, values in (("show_cnt", shown), ("click_cnt", clicked)):
        table = table.append_column(f"pin_attributes__{name}", pa.array(values[pins]))
    found = check_labels(table, ["click"])
    assert [(item.check, item.view) for item in found] == [("outlook", "pin_attributes")]
    assert "earlier rates do" in found[0].text
    assert check_labels(table, ["click"], trusted=["pin_attributes"]) == []


def test_ordinary_attributes_are_not_asked_about() -> None:
    table, rates, pins = log_of(300, 40)
    hint = rates + np.random.default_rng(8).normal(0, 0.3, 300)
    assert check_labels(table.append_column("pin_attributes__hint", pa.array(hint[pins])), ["click"]) == []


def test_check_labels_names_a_missing_label() -> None:
    with pytest.raises(ValueError, match=r"lacks \['buy'\]"):
        check_labels(log_of(10, 2)[0], ["buy"])


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [([1, 2, 3, 4], [0, 0, 1, 1], 1.0), ([1, 1, 1, 1], [0, 1, 0, 1], 0.5), ([3, 1, 2, 2], [1, 0, 1, 0], 0.875)],
)
def test_roc_auc_counts_ties_half(scores: list[float], positive: list[int], expected: float) -> None:
    assert roc_auc(np.array(scores, float), np.array(positive) == 1) == expected


@pytest.mark.data
@pytest.mark.skipif(not KUAIRAND.is_dir(), reason="../shared/data/kuairand_pure is absent")
def test_kuairand_month_average_is_caught_and_its_item_table_is_not() -> None:
    events = pq.read_table(KUAIRAND / "events.parquet", columns=["user_id", "video_id", "time_ms", "long_view"])
    frame = pa.table(
        {
            "pin_id": events["video_id"],
            "event_timestamp": events["time_ms"].cast(pa.timestamp("ms", tz="UTC")).cast(MOMENT),
            "long_view": events["long_view"],
        }
    )
    items = pq.read_table(KUAIRAND / "items.parquet")
    honest = with_attributes(frame, items, ["author_id", "video_duration", "music_id", "music_type", "server_width"])
    assert check_labels(honest, ["long_view"]) == []
    trap = pq.read_table(KUAIRAND / "item_statistics_month_average.parquet")
    numbers = ["show_cnt", "play_cnt", "valid_play_cnt", "long_time_play_cnt", "short_time_play_cnt", "play_progress"]
    found = check_labels(with_attributes(frame, trap, numbers), ["long_view"])
    assert {(item.check, item.view) for item in found} == {("outlook", "pin_attributes")}


def with_attributes(frame: pa.Table, table: pa.Table, names: list[str]) -> pa.Table:
    place = pc.index_in(frame["pin_id"], value_set=table["video_id"].combine_chunks())
    for name in names:
        frame = frame.append_column(f"pin_attributes__{name}", table[name].take(place))
    return frame
