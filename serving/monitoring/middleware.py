"""Around every request: its id, its record, and what is done with the record once the answer is out."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from serving.monitoring.request import REQUEST_ID_HEADER, RequestRecord, begin, request_id
from serving.monitoring.routes import RouteNames

if TYPE_CHECKING:
    from serving.monitoring.tracing import Tracing

logger = logging.getLogger("serving.requests")

UNSEEN = ("/healthz", "/readyz", "/metrics")
"""What probes ask all day; counted and not logged."""


class Monitoring:
    """The outermost middleware: what is refused by another one is seen here as well.

    Args:
        log_requests: Write a log line per request.
    """

    def __init__(
        self, app: ASGIApp, routes: RouteNames, metrics: Metrics, tracing: Tracing | None, *, log_requests: bool
    ) -> None:
        self.app = app
        self._routes, self._metrics, self._tracing, self._log_requests = routes, metrics, tracing, log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request with `X-Request-Id`, and take note of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestRecord(
            request_id=request_id(headers.get(REQUEST_ID_HEADER)),
            route=self._routes.of(scope["path"]),
            method=scope["method"],
        )
        begin(record)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                own = (REQUEST_ID_HEADER.encode(), record.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except BaseException:
            # Whoever catches it answers 500.
            record.status = record.status or 500
            raise
        finally:
            self._end(record, headers)

    def _end(self, record: RequestRecord, headers: Headers) -> None:
        record.end_ns = time.perf_counter_ns()
        self._metrics.answered(record)
        if self._tracing is not None:
            self._tracing.export(record, headers)
        if self._log_requests and record.route not in UNSEEN:
            logger.info(
                "event=request method=%s route=%s status=%d ms=%.1f release=%s arm=%s degraded=%s",
                record.method,
                record.route or "none",
                record.status,
                (record.end_ns - record.start_ns) / 1e6,
                record.release or "none",
                record.arm or "none",
                record.degraded or "none",
            )
