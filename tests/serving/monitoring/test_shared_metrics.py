"""One `/metrics` for several processes: sums, gauges of those alive, and nothing lost with one that ends."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

from serving.metrics import BulkHistogram, Metrics
from serving.monitoring import shared_metrics
from serving.monitoring.request import RequestRecord, StageTime


def two(folder: Path) -> tuple[Metrics, Metrics]:
    """Metrics of two processes that share a folder."""
    return Metrics(folder), Metrics(folder)


def value(metrics: Metrics, series: str) -> float | None:
    lines = metrics.text().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series), None)


def ended(milliseconds: float, **changes: object) -> RequestRecord:
    given = {"request_id": "r", "route": "/v1/rank", "status": 200, "release": "tiny-1", "start_ns": 0}
    return RequestRecord(**(given | {"end_ns": round(milliseconds * 1e6)} | changes))  # type: ignore[arg-type]


def test_counters_and_histograms_are_sums_whoever_is_asked(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    first.answered(ended(4.0))
    second.answered(ended(30.0))
    second.answered(ended(30.0, status=503, route=""))
    for each in (first, second):
        each.start()
        each.stop()
    for each in (first, second):
        assert value(each, 'headwater_requests_total{route="/v1/rank",status="200"}') == 2.0
        assert value(each, 'headwater_requests_total{route="none",status="503"}') == 1.0
        labels = 'release="tiny-1",route="/v1/rank"'
        assert value(each, f"headwater_request_seconds_count{{{labels}}}") == 2.0
        assert value(each, f"headwater_request_seconds_sum{{{labels}}}") == pytest.approx(0.034)
        assert value(each, f'headwater_request_seconds_bucket{{le="0.005",{labels}}}') == 1.0
        assert value(each, f'headwater_request_seconds_bucket{{le="+Inf",{labels}}}') == 2.0


def test_gauges_are_sums_or_the_largest_of_those_alive(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    for each, pins in ((first, 6), (second, 6)):
        each.now_live("tiny-1")
        each.loaded("tiny-1", pins, {"pctr_mean": 0.25})
        each.start()
        each.stop()
    assert value(first, 'headwater_release_live{release="tiny-1"}') == 2.0
    assert value(first, 'headwater_index_pins{release="tiny-1"}') == 6.0
    assert value(first, 'headwater_release_figure{figure="pctr_mean",release="tiny-1"}') == 0.25
    long_ago = time.time() - 2 * shared_metrics.SILENCE_S
    for file in tmp_path.glob("*.json"):
        os.utime(file, (long_ago, long_ago))
    second.polls.labels("answered").inc()
    assert value(first, 'headwater_release_live{release="tiny-1"}') == 1.0


def test_counts_of_a_process_that_has_ended_stay(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    second.polls.labels("failed").inc(5)
    second.start()
    second.stop()
    for file in tmp_path.glob("*.json"):
        os.utime(file, (0, 0))
    del second
    assert value(first, 'headwater_catalogue_polls_total{outcome="failed"}') == 5.0


def test_running_process_is_seen_by_the_other_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_metrics, "PERIOD_S", 0.01)
    first, second = two(tmp_path)
    second.start()
    second.refused.inc(3)
    deadline = time.monotonic() + 30.0
    while value(first, "headwater_requests_refused_total") != 3.0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second.stop()


def test_unusable_folder_and_damaged_snapshot_leave_the_own_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "serving.monitoring.shared_metrics")
    (tmp_path / "broken.json").write_text("[[")
    folder = tmp_path / "none"
    folder.write_text("in the way")
    metrics, other = Metrics(tmp_path), Metrics(folder)
    metrics.refused.inc()
    assert value(metrics, "headwater_requests_refused_total") == 1.0
    other.start()
    other.stop()
    messages = " ".join(record.getMessage() for record in caplog.records)
    assert "event=metrics_unread" in messages
    assert messages.count("event=metrics_not_shared") == 1


def test_one_process_needs_no_folder() -> None:
    metrics = Metrics()
    metrics.start()
    metrics.refused.inc()
    metrics.stop()
    assert value(metrics, "headwater_requests_refused_total") == 1.0


def test_time_of_a_request_is_shared_out_among_its_stages() -> None:
    metrics = Metrics()
    stages = [
        StageTime("store", 0, 2_000_000),
        StageTime("model", 3_000_000, 6_000_000),
        StageTime("store", 0, 1_000_000),
    ]
    metrics.answered(ended(10.0, stages=stages))
    spent = {name: value(metrics, f'headwater_stage_seconds_sum{{release="tiny-1",stage="{name}"}}') for name in STAGES}
    assert spent == pytest.approx(STAGES)


STAGES = {"store": 0.003, "model": 0.003, "server": 0.004}


def test_many_observations_are_those_of_one_by_one() -> None:
    values = np.array([0.0, 0.1, 0.1, 0.25, 0.9, 7.0])
    made = [BulkHistogram("made", "", buckets=(0.1, 0.5, 1.0), registry=None) for _ in range(2)]
    made[0].observe_many(values)
    made[0].observe_many(values[:0])
    for each in values:
        made[1].observe(each)
    found = [
        [(s.name, s.labels, s.value) for m in each.collect() for s in m.samples if "_created" not in s.name]
        for each in made
    ]
    assert found[0] == found[1]
