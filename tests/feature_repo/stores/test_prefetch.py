"""Items one ahead of their use, with a thread and where none can start."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from feature_repo.stores.prefetch import prefetch


def _squares(count: int, made: list[int]) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield number**2


def _refuse(*_: Any) -> int:
    raise RuntimeError("can't start new thread")


def _never_run(*_: Any) -> int:
    """A thread that the system made and never lets run."""
    return 1


@pytest.fixture(params=[_thread.start_new_thread, _refuse, _never_run], ids=["thread", "refused", "never_runs"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(_thread, "start_new_thread", request.param)
    started: Callable[..., int] = request.param
    return started


@pytest.mark.usefixtures("start")
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_prefetch_gives_every_item_in_order(count: int) -> None:
    with prefetch(_squares(count, [])) as items:
        assert list(items) == [number**2 for number in range(count)]


@pytest.mark.usefixtures("start")
def test_prefetch_is_never_more_than_one_ahead() -> None:
    made: list[int] = []
    with prefetch(_squares(20, made)) as items:
        for used, _ in enumerate(items, 1):
            assert used <= len(made) <= used + 1


@pytest.mark.usefixtures("start")
def test_prefetch_raises_what_the_items_raise() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with prefetch(broken()) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="disk"):
            next(items)


def test_prefetch_makes_the_next_item_while_one_is_used() -> None:
    is_made = threading.Event()

    def watched() -> Iterator[int]:
        yield 1
        is_made.set()
        yield 2

    with prefetch(watched()) as items:
        assert next(items) == 1
        assert is_made.wait(30)
        assert list(items) == [2]


def test_prefetch_that_is_given_up_waits_for_the_item_that_is_being_made() -> None:
    has_begun, may_end, made = threading.Event(), threading.Event(), []

    def slow() -> Iterator[int]:
        yield 1
        has_begun.set()
        may_end.wait(30)
        made.append(2)
        yield 2

    with suppress(KeyboardInterrupt), prefetch(slow()) as items:
        assert next(items) == 1
        assert has_begun.wait(30)
        threading.Timer(0.05, may_end.set).start()
        raise KeyboardInterrupt
    assert made == [2]


def test_items_as_they_are_need_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_thread, "start_new_thread")
    with prefetch(iter([1, 2]), is_ahead=False) as items:
        assert list(items) == [1, 2]
