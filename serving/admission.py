"""How much a process takes on at once: beyond it, requests are refused at once instead of waiting ever longer."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import ErrorDetail, error_response
from serving.metrics import Metrics

TOO_MANY = 429
RETRY_AFTER_S = 1
ALWAYS = "/v1/releases"
"""Who promotes or rolls back is never refused: that may be what ends the overload."""

PAGE = "/"
"""Costs as much as the recommendations that it shows."""


class Admission:
    """Answer 429 to what comes while `capacity` requests are answered or wait.

    Health and metrics are not counted: a busy process is alive and ready.
    """

    def __init__(self, app: ASGIApp, capacity: int, metrics: Metrics) -> None:
        self.app = app
        self.capacity, self._metrics = capacity, metrics
        # Of one event loop alone, so that no lock is needed.
        self._taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        path = scope.get("path", "")
        counted = path == PAGE or (path.startswith("/v1/") and not path.startswith(ALWAYS))
        if scope["type"] != "http" or not counted:
            await self.app(scope, receive, send)
            return
        if self._taken >= self.capacity:
            self._metrics.refused.inc()
            await error_response(self._refusal(), TOO_MANY, {"retry-after": str(RETRY_AFTER_S)})(scope, receive, send)
            return
        self._taken += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._taken -= 1

    def _refusal(self) -> ErrorDetail:
        return ErrorDetail(
            code="overloaded",
            message=f"at most {self.capacity} requests may be answered or wait at once (got one more)",
            remedy=f"try again after {RETRY_AFTER_S} s, as Retry-After says; start more processes if it stays",
        )
