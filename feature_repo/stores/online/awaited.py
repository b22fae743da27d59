"""Feast's awaited calls of an online store, each its plain one in a thread.

The plain calls share their connections among threads, and one way to read and write is kept right more easily than two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class AwaitedInThreads:
    """Goes before one of Feast's stores among the parents of a class."""

    online_write_batch: Callable[..., None]
    online_read: Callable[..., Any]
    _read_features_per_fv: Callable[..., None]

    async def online_write_batch_async(self, *args: Any, **kwargs: Any) -> None:
        """`online_write_batch` in a thread."""
        await asyncio.to_thread(self.online_write_batch, *args, **kwargs)

    async def online_read_async(self, *args: Any, **kwargs: Any) -> Any:
        """`online_read` in a thread."""
        return await asyncio.to_thread(self.online_read, *args, **kwargs)

    async def _read_features_per_fv_async(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *args, **kwargs)
