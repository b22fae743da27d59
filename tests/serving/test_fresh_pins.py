"""Pushed Pins beside an index: their place among those of the index, and the ledger they come from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss
import numpy as np
import pytest

from feature_repo.push import ledger
from feature_repo.push.ledger import LEDGER, ledger_stamp, note_pins, pins_since
from serving.fresh_pins import FreshVectors, _bias, merged

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


def test_merged_puts_pushed_pins_where_their_scores_belong() -> None:
    fresh = FreshVectors(pin_ids=np.array([7, 2]), vectors=np.array([[2.0, 0.5], [0.0, 0.1]], np.float32))
    found, scores = np.array([1, 2, 3, -1]), np.array([3.0, 2.0, 1.0, -9.0], np.float32)
    assert fresh.scores(np.array([[1.0, 1.0]], np.float32)).tolist() == [2.5, pytest.approx(0.1)]
    # Pin 2 was pushed: the index's score of it counts no longer.
    pins, both = merged(found, scores, fresh, np.array([2.5, 0.1]))
    assert (pins.tolist(), both.tolist()) == ([1, 7, 3, 2], [3.0, 2.5, 1.0, 0.1])


def test_bias_of_a_new_pin_is_the_least_in_the_index() -> None:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(2))
    index.add_with_ids(np.array([[1, -2], [1, -5], [1, -3]], np.float32), np.array([30, 10, 20]))
    bias = _bias(index)
    assert bias is not None
    assert bias(np.array([10, 20, 30, 40, 5])).tolist() == [-5.0, -3.0, -2.0, -5.0, -5.0]


def test_ledger_tells_the_pins_of_a_time_each_once(tmp_path: Path) -> None:
    assert (ledger_stamp(tmp_path), pins_since(tmp_path, NOON, 9)) == (None, [])
    for minutes, pins in ((0, [1]), (1, [2, 3]), (2, [2])):
        note_pins(tmp_path, pins, NOON + timedelta(minutes=minutes))
    assert pins_since(tmp_path, NOON, 9) == [3, 2]
    assert pins_since(tmp_path, NOON, 1) == [2]
    with (tmp_path / LEDGER).open("a") as torn:
        torn.write("17")
    assert pins_since(tmp_path, NOON, 9) == [3, 2]


def test_ledger_keeps_its_newest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_BYTES", 200)
    for pin in range(100):
        note_pins(tmp_path, [pin], NOON)
    found = pins_since(tmp_path, NOON - timedelta(seconds=1), 1000)
    assert found == list(range(found[0], 100))
    assert (tmp_path / LEDGER).stat().st_size <= 200
