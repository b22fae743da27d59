"""Errors as clients see them: `{"error": {"code", "message", "field", "value", "remedy"}}`."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serving.monitoring.request import REQUEST_ID_HEADER, current

logger = logging.getLogger(__name__)

UNAUTHORIZED = 401
LONGEST_SHOWN_VALUE = 200
"""Characters of an offending value that an answer repeats."""
_UNION_MEMBER = re.compile(r"^(int|str|constrained-\w+|list\[.*\]|function-.*)$")
REMEDIES = {
    "extra_forbidden": "remove the field or correct its name; /docs lists the fields",
    "missing": "add the field",
}
ONE_OBJECT = "send one JSON object, encoded in UTF-8"
BY_STATUS = {
    400: ("malformed_json", ONE_OBJECT),
    404: ("not_found", "see /docs for the routes"),
    405: ("method_not_allowed", "see /docs for the methods of each route"),
    413: ("body_too_long", "send fewer ids per request"),
}


class ErrorDetail(BaseModel):
    """What was wrong with a request."""

    code: str
    """Stable name of the error, for programs."""
    message: str
    """What must hold and what was got, for people."""
    field: str | None = None
    """Path of the offending field in the request."""
    value: Any = None
    """The offending value, shortened when long."""
    remedy: str = ""
    """What to do."""


class ErrorAnswer(BaseModel):
    """Body of every answer with status 400 or above."""

    error: ErrorDetail


class RequestError(Exception):
    """A request that cannot be answered as asked."""

    def __init__(self, detail: ErrorDetail, status: int = 422, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail.message)
        self.detail = detail
        self.status = status
        self.headers = {"www-authenticate": "Bearer"} if status == UNAUTHORIZED else dict(headers or {})


class NotReadyError(RequestError):
    """The server has no release to answer from."""

    def __init__(self, reason: str) -> None:
        detail = ErrorDetail(code="not_ready", message=reason, remedy="see /readyz and the server's log")
        super().__init__(detail, status=503)


def error_response(detail: ErrorDetail, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """JSON answer for an error; ASCII only, so that any received text can be repeated."""
    body = {"error": detail.model_dump() | {"value": shown(detail.value)}}
    return Response(json.dumps(body, allow_nan=False), status, headers, media_type="application/json")


def shown(value: Any) -> Any:
    """The value if it is short and plain JSON, else the start of its text."""
    if value is None or (isinstance(value, int) and value.bit_length() <= 64):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_SHOWN_VALUE else text[:LONGEST_SHOWN_VALUE] + "…"


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app in the one format."""
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_crash)


async def _on_request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error.detail, error.status, error.headers)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        detail = ErrorDetail(code="malformed_json", message=_malformed(first), remedy=ONE_OBJECT)
        return error_response(detail, 400)
    field = _field(first)
    detail = ErrorDetail(
        code="invalid_request",
        message=f"{field or 'body'}: {first['msg']}",
        field=field,
        value=None if first["type"] == "missing" else first.get("input"),
        remedy=REMEDIES.get(first["type"], "correct the value; /docs lists types and bounds") if field else ONE_OBJECT,
    )
    return error_response(detail, 422)


def _malformed(problem: dict[str, Any]) -> str:
    reason = problem.get("ctx", {}).get("error", problem["msg"])
    return f"body must be JSON (got, at character {problem['loc'][-1]}: {reason})"


def _field(problem: dict[str, Any]) -> str | None:
    """Path of a field within the body, such as `pin_ids.3`, without pydantic's names for the types of a union."""
    return ".".join(str(part) for part in problem["loc"][1:] if not _UNION_MEMBER.match(str(part))) or None


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, remedy = BY_STATUS.get(error.status_code, (f"http_{error.status_code}", "see /docs"))
    detail = ErrorDetail(code=code, message=str(error.detail), remedy=remedy)
    return error_response(detail, error.status_code)


async def _on_crash(request: Request, error: Exception) -> Response:
    logger.error("event=request_failed path=%s", request.url.path, exc_info=error)
    detail = ErrorDetail(code="internal_error", message="the request failed", remedy="see the server's log")
    # This answer is made outside of the middleware that puts the id on all others.
    record = current()
    return error_response(detail, 500, None if record is None else {REQUEST_ID_HEADER: record.request_id})
