"""Filters, bids and the cap per category, worked by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.terms import Bids, Filter, kept_by, spread_order

PINS = pa.table({"kind": ["a", "b", None, "a"], "size": [1, 2, 3, None]})


@pytest.mark.parametrize(
    ("column", "any_of", "none_of", "kept"),
    [
        ("kind", ("a",), (), [True, False, False, True]),
        ("kind", None, ("a",), [False, True, True, False]),
        ("kind", ("a", "b"), ("b",), [True, False, False, True]),
        ("size", (2, 3), (), [False, True, True, False]),
        ("size", None, (1,), [False, True, True, True]),
        ("size", ("2",), (), [False, False, False, False]),
        ("kind", (), (), [False, False, False, False]),
    ],
)
def test_filter_keeps_pins_by_a_value(
    column: str, any_of: tuple[str | int, ...] | None, none_of: tuple[str | int, ...], kept: list[bool]
) -> None:
    assert kept_by([Filter(column=column, any_of=any_of, none_of=none_of)], PINS).tolist() == kept


def test_filters_must_all_keep_a_pin() -> None:
    both = [Filter(column="kind", any_of=("a",), none_of=()), Filter(column="size", any_of=(1,), none_of=())]
    assert kept_by(both, PINS).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("per", "value"), [("click", [2.0 * 0.5, 1.0 * 0.25]), ("conversion", [2.0 * 0.5 * 0.1, 1.0 * 0.25 * 0.2])]
)
def test_expected_value_is_the_bid_times_the_probability_of_what_it_is_for(per: str, value: list[float]) -> None:
    bids = Bids(per=per, of_pins={7: 2.0}, otherwise=1.0)  # type: ignore[arg-type]
    found = bids.expected_value(np.array([7, 8]), np.array([0.5, 0.25]), np.array([0.1, 0.2]))
    assert found.tolist() == pytest.approx(value)


@pytest.mark.parametrize(
    ("at_most", "expected"),
    [
        # Best first: a a a b c a; None is of no category, so that no cap holds for it.
        (1, [0, 3, 4, 6, 7, 1, 2, 5]),
        (2, [0, 1, 3, 4, 6, 7, 2, 5]),
        (9, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_spread_gives_every_category_its_turn(at_most: int, expected: list[int]) -> None:
    categories = pa.chunked_array([["a", "a", "a", "b", "c", "a", None, None]])
    assert spread_order(np.arange(8), categories, at_most).tolist() == expected


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30), st.integers(1, 5), st.integers(0, 999))
def test_spread_drops_nothing_and_keeps_the_order_within_a_category(
    categories: list[str | None], at_most: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(categories))
    found = spread_order(order, pa.chunked_array([pa.array(categories, pa.string())]), at_most).tolist()
    assert sorted(found) == sorted(order.tolist())
    for kind in set(categories):
        own = [place for place in found if categories[place] == kind]
        assert own == [place for place in order.tolist() if categories[place] == kind]
