"""Request bodies: read as JSON whatever their Content-Type says, and never longer than the limit."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = b"content-type"


class JsonBodies:
    """Relabel every request body as JSON, because `curl -d` labels it as an HTML form and FastAPI would refuse that.

    Browsers may send forms across sites without asking; harmless here, for no route reads cookies or changes anything.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with `Content-Type: application/json`."""
        if scope["type"] == "http":
            kept = [(name, value) for name, value in scope["headers"] if name != CONTENT_TYPE]
            scope = {**scope, "headers": [*kept, (CONTENT_TYPE, b"application/json")]}
        await self.app(scope, receive, send)


class BodyLimit:
    """Stop reading a body at `max_bytes` with status 413, whether or not its length was declared."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that counts.

        The limit is raised there, inside the app, so that the app's own handler words the answer.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        received = 0

        async def counted() -> Message:
            nonlocal received
            self._check(int(declared) if declared.isdecimal() else 0)
            message = await receive()
            received += len(message.get("body", b""))
            self._check(received)
            return message

        await self.app(scope, counted, send)

    def _check(self, length: int) -> None:
        if length > self.max_bytes:
            raise HTTPException(413, f"the body must be at most {self.max_bytes} bytes long (got {length} or more)")
