"""The request in hand: its id, the stages that its time went to, and what was found out on the way.

The middleware sets it, and the thread that answers inherits it, so that no function has to pass it on.
"""

from __future__ import annotations

import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

REQUEST_ID_HEADER: Final = "x-request-id"
_TAKEN_OVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/+=-]{0,127}")
_current: ContextVar[RequestRecord | None] = ContextVar("headwater_request", default=None)


@dataclass(frozen=True, slots=True)
class StageTime:
    """A part of a request's time."""

    name: str
    """`store`, `index`, `model`: what waits for those; the rest of the request is the server's own work."""
    start_ns: int
    """As `time.perf_counter_ns` counts."""
    end_ns: int


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """One request from its arrival to its last byte; changed by whoever finds something out."""

    request_id: str
    """As the client sent it in `X-Request-Id`, or made here."""
    route: str = ""
    """Path of the route with its parameters named, such as `/v1/releases/{id}/promote`; empty where none matches."""
    method: str = ""
    status: int = 0
    """Of the answer; 0 while there is none."""
    release: str = ""
    """Release that answers; empty where none is read."""
    arm: str = ""
    """Arm of the running split that the user is in; empty where there is none."""
    degraded: str = ""
    """Why the answer is less than it could be; empty for a whole one."""
    start_ns: int = field(default_factory=time.perf_counter_ns)
    end_ns: int = 0
    """As `time.perf_counter_ns` counts, 0 before the end."""
    started_ns: int = field(default_factory=time.time_ns)
    """Unix time of `start_ns`."""
    stages: list[StageTime] = field(default_factory=list)


class stage:  # noqa: N801  # it reads as a statement: `with stage("store"):`
    """Time spent within goes to a stage of the request in hand; outside of one it goes nowhere."""

    __slots__ = ("_name", "_start_ns")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        record = _current.get()
        if record is not None:
            record.stages.append(StageTime(self._name, self._start_ns, time.perf_counter_ns()))


def current() -> RequestRecord | None:
    """The request in hand; none outside of one."""
    return _current.get()


def begin(record: RequestRecord | None) -> None:
    """Make it the request in hand of this context, and of threads that inherit it from here on; none for no request."""
    _current.set(record)


def note_choice(release: str, arm: str = "") -> None:
    """Say which release answers the request in hand, and in which arm of a split."""
    record = _current.get()
    if record is not None:
        record.release, record.arm = release, arm


def request_id(given: str | None) -> str:
    """The client's id where it is one (up to 128 letters, digits and `_.:@/+=-`), else a new one.

    What else a header may hold could forge log lines.
    """
    return given if given is not None and _TAKEN_OVER.fullmatch(given) else uuid.uuid4().hex
