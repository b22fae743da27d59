"""Popular Pins of a day, and what an index is refused for."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from trainers.life import pin_index
from trainers.life.pin_index import most_popular, popular_pins


def clicks(repo: SmallRepo, start: datetime, end: datetime) -> list[tuple[str, int]]:
    table = repo.log.impressions(start, end)
    rows = zip(table["surface"].to_pylist(), table["pin_id"].to_pylist(), table["click"].to_pylist(), strict=True)
    return [(surface, pin) for surface, pin, clicked in rows if clicked == 1]


def test_popular_pins_are_the_most_engaged_of_the_week_before_the_cutoff(small_repo: SmallRepo) -> None:
    until = small_repo.spec.window.until
    week = clicks(small_repo, until - timedelta(days=7), until)
    month = clicks(small_repo, until - timedelta(days=28), until)
    popular = popular_pins(small_repo.log, until)
    assert sorted(popular) == ["*", "home", "related", "search"]
    for surface, found in popular.items():
        recent, total = (
            np.bincount([pin for at, pin in rows if surface in ("*", at)], minlength=30) for rows in (week, month)
        )
        expected = sorted(np.flatnonzero(total).tolist(), key=lambda pin: (-recent[pin], -total[pin], pin))
        assert found == expected


def test_popular_pins_know_nothing_of_the_day_that_begins(small_repo: SmallRepo) -> None:
    first = small_repo.spec.cutoffs()[0]
    assert popular_pins(small_repo.log, first - timedelta(days=100)) == {"*": []}


def test_most_popular_adds_up_repeated_pins_and_breaks_ties_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = np.array([3, 1, 1, 2, 3, 9])
    counts = np.array([[1, 1], [0, 5], [2, 2], [2, 7], [1, 1], [0, 1]])
    # Recent, then all: 2 has 2 and 7, 1 has 2 and 7, 3 has 2 and 2, 9 has 0 and 1.
    assert most_popular(pins, counts) == [1, 2, 3, 9]
    monkeypatch.setattr(pin_index, "NUM_POPULAR", 2)
    assert most_popular(pins, counts) == [1, 2]
    assert most_popular(np.empty(0, np.int64), np.empty((0, 2), np.int64)) == []
