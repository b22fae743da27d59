"""Event timestamps in Feast's SQLite tables: whole seconds in `event_ts`, and our microseconds beside them.

Feast's column holds the seconds of the naive UTC time taken as local time, which is Unix time only where the machine's
zone is UTC. The column `event_us` is ours; it counts only while it belongs to the second in `event_ts`, because a stock
client overwrites that one alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=65_536)
def stock_seconds(micros: int) -> int:
    """What Feast stores for a Unix time in microseconds."""
    return int((_EPOCH + timedelta(microseconds=micros)).timestamp())


@lru_cache(maxsize=65_536)
def stored_micros(event_ts: int, event_us: int | None) -> int:
    """Unix time in microseconds of a row, as exactly as it is known."""
    if event_us is not None and stock_seconds(event_us) == event_ts:
        return event_us
    return (datetime.fromtimestamp(event_ts) - _EPOCH) // _MICROSECOND
