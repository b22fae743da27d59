"""Working on one item while the next is being made."""

from __future__ import annotations

import _thread
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

_END: Any = object()


@contextmanager
def prefetch(items: Iterator[Item], *, is_ahead: bool = True) -> Iterator[Iterator[Item]]:
    """The same items in order; the next is made in a thread of its own, and never more than one ahead.

    What the thread has not begun when it is needed is made by the caller: nobody waits for a thread that cannot start.
    At the end of the block the thread makes nothing any more.

    Args:
        is_ahead: False for the items as they are.
    """
    if not is_ahead:
        yield items
        return
    ahead = _Ahead(items)
    try:
        yield iter(ahead.next, _END)
    finally:
        ahead.close()


class _Ahead:
    """One item, made by whoever comes first: a thread, or the caller who needs it."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._coming: Future[Any] = Future()
        self._begun: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._has_thread = False

    def next(self) -> Any:
        """The next item, or `_END`; the one after it is begun."""
        item = next(self._items, _END) if self._coming.cancel() else self._coming.result()
        if item is not _END:
            self._begin_next()
        return item

    def _begin_next(self) -> None:
        self._coming = Future()
        if not self._has_thread:
            self._has_thread = True
            _start(_make, self._begun, self._items)
        self._begun.put(self._coming)

    def close(self) -> None:
        """Let the thread end, and wait for what it is making: it reads what the caller may now remove."""
        self._begun.put(None)
        if not self._coming.cancel():
            self._coming.exception()


def _start(function: Any, *args: Any) -> None:
    # `threading` and its pools wait until a new thread has reported back, and hold locks that forks take too.
    try:
        _thread.start_new_thread(function, args)
    except RuntimeError as error:
        logger.warning("working_without_prefetch reason=%r", str(error))


def _make(begun: SimpleQueue[Future[Any] | None], items: Iterator[Any]) -> None:
    while (coming := begun.get()) is not None:
        if not coming.set_running_or_notify_cancel():
            continue
        try:
            coming.set_result(next(items, _END))
        except BaseException as error:
            coming.set_exception(error)
        del coming
