"""The moving average of embeddings, by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.upstream.aggregate import keep_last, moving_average, normalised


def day(rows: dict[int, tuple[float, ...]], dim: int = 2) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Keys and vectors of a day."""
    return np.array(list(rows), np.int64), np.array(list(rows.values()), np.float32).reshape(-1, dim)


def as_dict(found: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]) -> dict[int, list[float]]:
    """Vectors by key."""
    return {int(key): vector.tolist() for key, vector in zip(*found, strict=True)}


def test_moving_average_weighs_the_past_and_returns_to_unit_length() -> None:
    # 0.8 (1, 0) + 0.2 (0, 1) = (0.8, 0.2), of length sqrt(0.68).
    found = as_dict(moving_average(day({7: (1.0, 0.0)}), day({7: (0.0, 1.0)}), 0.8))
    assert found == {7: pytest.approx([0.8 / 0.68**0.5, 0.2 / 0.68**0.5])}


def test_moving_average_with_no_weight_on_the_past_is_today() -> None:
    found = as_dict(moving_average(day({7: (1.0, 0.0)}), day({7: (0.0, 1.0)}), 0.0))
    assert found == {7: [0.0, 1.0]}


def test_moving_average_starts_a_new_entity_at_today_and_drops_an_absent_one() -> None:
    past = day({1: (1.0, 0.0), 5: (0.0, 1.0)})
    found = as_dict(moving_average(past, day({9: (0.0, -1.0), 5: (0.0, 1.0)}), 0.8))
    assert list(found) == [5, 9]
    assert found == {5: pytest.approx([0.0, 1.0]), 9: [0.0, -1.0]}


def test_moving_average_forgets_an_entity_that_was_away_for_a_day() -> None:
    state = moving_average(day({}), day({1: (1.0, 0.0)}), 0.8)
    state = moving_average(state, day({}), 0.8)
    assert as_dict(moving_average(state, day({1: (0.0, 1.0)}), 0.8)) == {1: [0.0, 1.0]}


def test_moving_average_keeps_the_last_of_the_day() -> None:
    keys, vectors = np.array([3, 2, 3]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    assert as_dict(moving_average(day({}), (keys, vectors), 0.8)) == {2: [1.0, 0.0], 3: [0.0, 1.0]}


def test_moving_average_of_opposite_vectors_stays_finite() -> None:
    found = as_dict(moving_average(day({1: (1.0, 0.0)}), day({1: (-1.0, 0.0)}), 0.5))
    assert found == {1: [0.0, 0.0]}


def test_moving_average_refuses_another_width() -> None:
    with pytest.raises(ValueError, match=r"widths must agree \(got 3 and 2\); publish a new embedding version"):
        moving_average(day({1: (1.0, 0.0, 0.0)}, 3), day({1: (1.0, 0.0)}), 0.8)


def test_moving_average_leaves_its_arguments_alone() -> None:
    past, today = day({1: (1.0, 0.0)}), day({1: (0.0, 1.0)})
    moving_average(past, today, 0.8)
    assert (as_dict(past), as_dict(today)) == ({1: [1.0, 0.0]}, {1: [0.0, 1.0]})


@given(st.lists(st.integers(-5, 5), max_size=12))
def test_keep_last_gives_every_key_its_last_vector(keys: list[int]) -> None:
    vectors = np.arange(len(keys), dtype=np.float32)[:, None]
    unique, last = keep_last(np.array(keys, np.int64), vectors)
    assert dict(zip(unique.tolist(), last[:, 0].tolist(), strict=True)) == {key: i for i, key in enumerate(keys)}
    assert unique.tolist() == sorted(set(keys))


def test_normalised_leaves_a_zero_row_at_zero() -> None:
    assert normalised(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist() == [
        pytest.approx([0.6, 0.8]),
        [0.0, 0.0],
    ]
