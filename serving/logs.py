"""Where the server's own log lines go, and what each of them says besides its message: the request it belongs to."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Literal

from serving.monitoring.request import current

LogFormat = Literal["text", "json"]

FORMAT = "%(asctime)s level=%(levelname)s logger=%(name)s%(request)s %(message)s"
_FIELD = re.compile(r"(\w+)=(\S*)")
_REST = "reason"
"""Field whose value is all that follows it."""


class OfRequest(logging.Filter):
    """Puts the id of the request in hand on every line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, with `request_id`."""
        request = current()
        record.request_id = request.request_id if request is not None else None
        record.request = f" request_id={request.request_id}" if request is not None else ""
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `request_id`, `message`, and the message's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = record.getMessage()
        line: dict[str, Any] = {
            **fields_of(message),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = request_id
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def fields_of(message: str) -> dict[str, str]:
    """The `key=value` fields of a message; `reason` takes all that follows it."""
    head, found, rest = message.partition(f"{_REST}=")
    fields = {name: value for name, value in _FIELD.findall(head)}
    return fields | ({_REST: rest} if found else {})


def configure_logging(level: str, form: LogFormat = "text") -> None:
    """Write log lines of the server to standard error, unless whoever runs the process has set up logging itself."""
    logger = logging.getLogger("serving")
    logger.setLevel(level.upper())
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.addFilter(OfRequest())
        handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(FORMAT))
        logger.addHandler(handler)
