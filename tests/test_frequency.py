"""The sketch against exact counts, forgetting, and storage."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from trainers.frequency import CountMinConfig, CountMinSketch, ExactFrequency, FrequencyEstimate

Stream = list[list[int]]
streams = st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=8)


def fed(estimate: FrequencyEstimate, stream: Stream) -> None:
    for ids in stream:
        estimate.update(np.array(ids, np.int64))


@settings(max_examples=60, deadline=None)
@given(streams)
def test_sketch_never_counts_too_few(stream: Stream) -> None:
    sketch, exact = CountMinSketch(CountMinConfig(width=8, depth=2)), ExactFrequency()
    fed(sketch, stream)
    fed(exact, stream)
    ids = np.arange(41)
    assert (sketch.count(ids) >= exact.count(ids)).all()
    assert sketch.total == exact.total == sum(map(len, stream))


@settings(max_examples=30, deadline=None)
@given(streams)
def test_wide_sketch_agrees_with_exact_counts(stream: Stream) -> None:
    sketch, exact = CountMinSketch(CountMinConfig(width=1 << 14)), ExactFrequency()
    fed(sketch, stream)
    fed(exact, stream)
    ids = np.arange(-5, 60)
    np.testing.assert_array_equal(sketch.count(ids), exact.count(ids))
    np.testing.assert_array_equal(sketch.log_probability(ids), exact.log_probability(ids))


@pytest.mark.parametrize("estimate", [CountMinSketch(CountMinConfig()), ExactFrequency()], ids=["sketch", "exact"])
def test_log_probability_matches_hand_worked_numbers(estimate: FrequencyEstimate) -> None:
    assert estimate.log_probability(np.array([7])).tolist() == [0.0]
    fed(estimate, [[7, 7, 8], [7, -9, 8, 8, 8]])
    # Eight draws: three, four and one; an id never seen counts as seen once.
    found = estimate.log_probability(np.array([7, 8, -9, 2**62]))
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([math.log(3 / 8), math.log(4 / 8), math.log(1 / 8), math.log(1 / 8)])


def test_counts_halve_after_their_half_life() -> None:
    sketch = CountMinSketch(CountMinConfig(half_life=4.0))
    fed(sketch, [[1, 1, 1, 1], [2, 2, 2, 2]])
    assert sketch.count(np.array([1, 2])).tolist() == [2.0, 4.0]
    assert sketch.total == 6.0


def test_sketch_error_stays_small_on_a_skewed_stream() -> None:
    random = np.random.default_rng(0)
    ids = random.zipf(1.3, size=20_000)
    sketch, exact = CountMinSketch(CountMinConfig(width=1 << 12)), ExactFrequency()
    for part in np.array_split(ids, 20):
        sketch.update(part)
        exact.update(part)
    unique = np.unique(ids)
    excess = sketch.count(unique) - exact.count(unique)
    # The plain sketch's bound is e / width of the stream; the conservative one must hold it with room.
    assert excess.mean() < 0.1 * math.e / (1 << 12) * len(ids)


def test_sketch_continues_where_it_was_saved(tmp_path: Path) -> None:
    config = CountMinConfig(width=64, half_life=50.0, seed=3)
    first, second = [[1, 2, 3, 3]] * 3, [[5, 5, 1]] * 2
    whole = CountMinSketch(config)
    fed(whole, first)
    save_file(whole.to_arrays(), tmp_path / "sketch.safetensors")
    restored = CountMinSketch.from_arrays(config, load_file(tmp_path / "sketch.safetensors"))
    fed(whole, second)
    fed(restored, second)
    ids = np.arange(10)
    np.testing.assert_array_equal(whole.log_probability(ids), restored.log_probability(ids))


def test_saved_state_does_not_change_with_the_sketch() -> None:
    sketch = CountMinSketch(CountMinConfig(width=64))
    state = sketch.to_arrays()
    fed(sketch, [[1]])
    assert state["table"].sum() == 0.0


def test_sketch_refuses_arrays_of_another_size() -> None:
    arrays = CountMinSketch(CountMinConfig(width=64)).to_arrays()
    with pytest.raises(ValueError, match=r"table must have shape \(4, 128\) \(got \(4, 64\)\)"):
        CountMinSketch.from_arrays(CountMinConfig(width=128), arrays)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 100, r"width must be a power of two and at least 2 \(got 100\)"),
        ("width", 1, "power of two"),
        ("depth", 0, r"depth must be at least 1 \(got 0\)"),
        ("half_life", -1.0, r"half_life must be at least 0 \(got -1.0\)"),
    ],
)
def test_sketch_refuses_impossible_sizes(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CountMinConfig(**{name: value})
