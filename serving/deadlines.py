"""By when a request must be answered: its `X-Deadline-Ms`, or what the operator set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from feature_repo.stores.online.deadline import reads_end
from serving.settings import LONGEST_DEADLINE_MS

SPARE_SHARE, LEAST_SPARE_S, MOST_SPARE_S = 0.15, 0.002, 0.05
"""Share of the deadline, within bounds, that is kept for answering without the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """The moment by which one request must be answered."""

    ends: float
    """On the monotonic clock."""
    allowed_s: float
    """From the moment at which the request had arrived."""

    @classmethod
    def after_ms(cls, allowed_ms: float) -> Deadline:
        """A deadline that counts from now."""
        return cls(ends=time.monotonic() + allowed_ms / 1000, allowed_s=allowed_ms / 1000)

    @property
    def spare_s(self) -> float:
        """Time that is kept for answering without the store."""
        return min(MOST_SPARE_S, max(LEAST_SPARE_S, SPARE_SHARE * self.allowed_s))

    def left_s(self) -> float:
        """Time that may still be spent on an answer with everything in it; negative when there is none."""
        return self.ends - self.spare_s - time.monotonic()

    @contextmanager
    def reads(self, keep_s: float = 0.0) -> Iterator[None]:
        """Reads of the online store within end in time.

        Args:
            keep_s: Time that is needed after them.
        """
        with reads_end(self.ends - self.spare_s - keep_s):
            yield


# Counted from here on the event loop, so that waiting for a thread counts too.
async def get_deadline(
    request: Request,
    x_deadline_ms: Annotated[
        int | None,
        Header(
            ge=1,
            le=LONGEST_DEADLINE_MS,
            description="Milliseconds until the answer must be there; what is not known by then is left out, and said",
        ),
    ] = None,
) -> Deadline:
    """The deadline of a request."""
    return Deadline.after_ms(x_deadline_ms or request.app.state.settings.deadline_ms)


Timely = Annotated[Deadline, Depends(get_deadline)]
