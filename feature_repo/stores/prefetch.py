"""Working on one item while the next is being made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


@contextmanager
def prefetched(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """The same items in order; the next is made in a thread of its own, and never more than one ahead.

    The thread has ended when the context has. A generator that ends it would not do: one that is given up waits for its
    thread wherever the garbage collector meets it, and where that is inside Python's own list of threads, for ever.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        yield _one_ahead(items, pool)


def _one_ahead(items: Iterator[Item], pool: ThreadPoolExecutor) -> Iterator[Item]:
    coming = pool.submit(next, items, _END)
    while (item := coming.result()) is not _END:
        coming = pool.submit(next, items, _END)
        yield item  # type: ignore[misc]
