"""The moment against which online rows age when Feast itself reads them: the wall clock, or the last materialization.

By the wall clock every row of a log that ended years ago is outside max age, which is true and useless. Such repos set
`clock: materialized` in their online store: time stands at the end of the view's last materialization.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from feature_repo.stores.packed.times import to_micros

Clock = Literal["wall", "materialized"]
_KEEP_S = 10.0


class ReadClock:
    """Tells how old rows of a view are; remembers the registry's answers for ten seconds."""

    def __init__(self) -> None:
        self._registry: Any = None
        self._project = ""
        self._ends: dict[str, tuple[float, int | None]] = {}

    def use(self, registry: Any, project: str) -> None:
        """Learn the registry that knows when views were materialized."""
        if registry is not self._registry or project != self._project:
            self._registry, self._project, self._ends = registry, project, {}

    def now(self, clock: Clock, view: str) -> tuple[int, bool]:
        """Unix time in microseconds, and whether it stands still: then no row counts as too new."""
        end = self._end(view) if clock == "materialized" else None
        return (time.time_ns() // 1000, False) if end is None else (end, True)

    def _end(self, view: str) -> int | None:
        if self._registry is None:
            return None
        since, end = self._ends.get(view, (float("-inf"), None))
        if time.monotonic() - since > _KEEP_S:
            found = self._registry.get_any_feature_view(view, self._project, allow_cache=True)
            newest = getattr(found, "most_recent_end_time", None)
            end = None if newest is None else to_micros(newest)
            self._ends[view] = (time.monotonic(), end)
        return end
