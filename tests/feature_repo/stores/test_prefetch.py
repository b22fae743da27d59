"""Items that are made ahead, and what is left when the one who asked for them stops."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from feature_repo.stores.prefetch import prefetched


def test_prefetched_items_come_in_order_and_at_most_one_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    with prefetched(items()) as ahead:
        for number in ahead:
            assert len(made) <= number + 2
    assert made == list(range(5))


def test_prefetched_raises_what_making_an_item_raises() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    with prefetched(items()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(KeyError, match="second"):
            next(ahead)


def test_prefetched_leaves_no_thread_when_its_user_fails() -> None:
    def write_one() -> None:
        with prefetched(iter([1, 2, 3])) as ahead:
            raise RuntimeError(f"no room for {next(ahead)}")

    with pytest.raises(RuntimeError, match="no room for 1"):
        write_one()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetched_items_given_up_in_a_cycle_are_collected_without_waiting() -> None:
    collected, was_late = threading.Event(), []

    def items() -> Iterator[int]:
        yield 1
        was_late.append(not collected.wait(5))

    with prefetched(items()) as ahead:
        cycle = [next(ahead), ahead]
        cycle.append(cycle)
        del cycle, ahead
        gc.collect()
        collected.set()
    assert was_late == [False]
