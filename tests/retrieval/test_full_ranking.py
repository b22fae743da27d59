"""Ranking a corpus, against brute force."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.metrics import ndcg_at_k, recall_at_k
from trainers.retrieval.full_ranking import Keys, Vectors, best_by_bias, top_pins_by_bias


def column(*values: float) -> npt.NDArray[np.float32]:
    """Vectors of width 1."""
    return np.array(values, np.float32)[:, None]


def keys(*values: int) -> npt.NDArray[np.int64]:
    """Positions."""
    return np.array(values, np.int64)


NO_BIAS = np.zeros(4, np.float32)


def top_pins(
    queries: Vectors, candidates: Vectors, bias: Vectors, seen: list[Keys], k: int, *, chunk: int = 256
) -> Keys:
    """The best Pins under one bias."""
    (found,) = top_pins_by_bias(queries, candidates, bias[None], seen, k, chunk=chunk)
    return np.asarray(found)


def test_top_pins_rank_by_inner_product_plus_bias() -> None:
    bias = np.array([0.0, 0.0, 2.5, 0.0], np.float32)
    assert top_pins(column(1.0, -1.0), column(1, 2, 0, 3), bias, [keys()] * 2, 3).tolist() == [[3, 2, 1], [2, 0, 1]]


def test_top_pins_leave_out_what_each_user_has_seen() -> None:
    seen = [keys(3), keys(), keys(0, 1)]
    found = top_pins(column(1, 1, 1), column(1, 2, 0, 3), NO_BIAS, seen, 2)
    assert found.tolist() == [[1, 0], [3, 1], [3, 2]]


def test_top_pins_give_minus_one_where_nothing_unseen_is_left() -> None:
    found = top_pins(column(1, 1), column(1, 2, 0, 3), NO_BIAS, [keys(0, 1, 2), keys(0, 1, 2, 3)], 3)
    assert found.tolist() == [[3, -1, -1], [-1, -1, -1]]


def test_top_pins_rank_equal_scores_by_position() -> None:
    assert top_pins(column(0.0), column(1, 2, 0, 3), NO_BIAS, [keys(1)], 2).tolist() == [[0, 2]]
    bias = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
    assert top_pins(column(0.0), column(1, 2, 0, 3), bias, [keys()], 3).tolist() == [[1, 3, 0]]


def test_top_pins_by_bias_are_those_of_each_bias_alone() -> None:
    biases = np.array([[0.0, 0.0, 2.5, 0.0], [5.0, 0.0, 0.0, 0.0]], np.float32)
    queries, candidates, seen = column(1.0, -1.0), column(1, 2, 0, 3), [keys(1), keys()]
    found = top_pins_by_bias(queries, candidates, biases, seen, 3)
    assert found.tolist() == [top_pins(queries, candidates, bias, seen, 3).tolist() for bias in biases]
    assert found[1].tolist() == [[0, 3, 2], [0, 2, 1]]


def test_top_pins_of_the_whole_corpus_is_an_order_of_it() -> None:
    assert top_pins(column(1.0), column(1, 2, 0, 3), NO_BIAS, [keys()], 4).tolist() == [[3, 1, 0, 2]]


def test_top_pins_of_nobody_are_nothing() -> None:
    assert top_pins(np.empty((0, 1), np.float32), column(1, 2, 0, 3), NO_BIAS, [], 2).shape == (0, 2)


@pytest.mark.parametrize("k", [0, 5])
def test_top_pins_refuse_a_k_outside_the_corpus(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.4, .*\(got {k}\)"):
        top_pins(column(1.0), column(1, 2, 0, 3), NO_BIAS, [keys()], k)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_top_pins_refuse_vectors_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"candidates must be finite \(got 1 elements"):
        top_pins(column(1.0), column(1, value, 0, 3), NO_BIAS, [keys()], 2)


def brute_force(scores: npt.NDArray[np.float32], seen: set[int], k: int) -> list[int]:
    """The same by sorting everything."""
    unseen = [pin for pin in range(len(scores)) if pin not in seen]
    return (sorted(unseen, key=lambda pin: (-scores[pin], pin)) + [-1] * k)[:k]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_top_pins_equal_brute_force(data: st.DataObject) -> None:
    num_users, num_pins = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    small = st.integers(-2, 2)
    queries = column(*data.draw(st.lists(small, min_size=num_users, max_size=num_users)))
    candidates = column(*data.draw(st.lists(small, min_size=num_pins, max_size=num_pins)))
    bias = np.array(data.draw(st.lists(small, min_size=num_pins, max_size=num_pins)), np.float32)
    seen = [data.draw(st.sets(st.integers(0, num_pins - 1))) for _ in range(num_users)]
    k = data.draw(st.integers(1, num_pins))
    found = top_pins(queries, candidates, bias, [keys(*sorted(met)) for met in seen], k, chunk=2)
    scores = queries @ candidates.T + bias
    assert found.tolist() == [brute_force(row, met, k) for row, met in zip(scores, seen, strict=True)]


def test_recall_and_ndcg_of_top_pins_by_hand() -> None:
    ranked = top_pins(column(1, 1), column(1, 2, 0, 3), NO_BIAS, [keys(3), keys(0, 1, 2)], 2)
    assert ranked.tolist() == [[1, 0], [3, -1]]
    relevant = [keys(0, 2), keys(3)]
    assert recall_at_k(ranked, relevant, 2).tolist() == [0.5, 1.0]
    discount = 1.0 / np.log2(3.0)
    np.testing.assert_allclose(ndcg_at_k(ranked, relevant, 2), [discount / (1.0 + discount), 1.0])


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores must be finite \(got 2 elements"):
        best_by_bias(lambda *_: np.array([[1.0, np.nan, np.inf]], np.float32), 1, np.zeros((1, 3), np.float32), [], 1)
