"""Durations and progress without a terminal."""

from __future__ import annotations

import time

import pytest

from trainers.console import PlainProgress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_progress_writes_time_left_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines: list[str] = []
    with PlainProgress(lines.append).stage("day 2026-01-02", total=400) as stage:
        stage.advance(100)
        now = 105.0
        stage.advance(100)
        stage.advance(100)
    assert lines == ["  day 2026-01-02: 200 of 400, 5.0 s left"]
