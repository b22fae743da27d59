"""A client in a process of its own that sends at a constant rate, however long the answers take.

Latency counts from the moment at which a request was due, so that a stalled server is charged for all that waited.
Every answer is compared, byte by byte, with what each release answers alone. Moments are of the machine's monotonic
clock, which processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FAILED, MIXED, LESS = -1, -2, -3
"""Outcomes: no answer with status 200, one that no release gives, and one that says it is less than it could be."""
DEGRADED = b'"degraded":{'
HTTP_OK = 200
_BUFFER_BYTES = 1 << 18
_BEGINNING = 4096
REQUESTS_A_CONNECTION = 100
"""Requests after which a connection is opened anew, so that every worker process gets its share."""
PATIENCE_S = 30.0


Moments = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request, and what each release answers to it."""

    path: str
    body: str
    answers: tuple[str, ...]
    """By release, in the order in which the plan's releases are numbered; without any, every whole answer will do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is sent, and how fast."""

    port: int
    rate: float
    """Requests a second."""
    seconds: float
    connections: int
    requests: tuple[Request, ...]
    """Sent in turns."""
    give_up_s: float = 10.0
    """Requests that are later than this are not sent any more and count as failed, so that a rate that is far too high
    comes to an end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """What became of every request, in the order in which they were due; seconds of the monotonic clock."""

    due: Moments
    sent: Moments
    received: Moments
    outcome: npt.NDArray[np.int64]
    """Number of the release, `FAILED` or `MIXED`."""

    @property
    def latency_ms(self) -> Moments:
        """From due to received."""
        return np.asarray((self.received - self.due) * 1000.0)

    def count(self, outcome: int) -> int:
        """Requests with an outcome."""
        return int((self.outcome == outcome).sum())


class _Connection(asyncio.BufferedProtocol):
    """One connection, into one buffer: answers may be megabytes, and this process shares the server's cores."""

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)
        self._filled = self._body = self._end = 0
        self._answered: asyncio.Future[None] | None = None
        self._writer: Any = None

    async def ask(self, wire: bytes) -> tuple[int, memoryview]:
        """Status and body of the answer; the body is valid until the next question."""
        assert self._writer is not None
        self._filled = self._body = self._end = 0
        self._answered = asyncio.get_running_loop().create_future()
        self._writer.write(wire)
        await self._answered
        return int(self._buffer[9:12]), memoryview(self._buffer)[self._body : self._end]

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._writer = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        if self._filled == len(self._buffer):
            # Not in place: a view of the old one may still be held.
            self._buffer = self._buffer + bytearray(len(self._buffer))
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if not self._end and (head := self._buffer.find(b"\r\n\r\n", 0, self._filled)) >= 0:
            lines = bytes(self._buffer[:head]).lower().split(b"\r\n")
            length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
            self._body, self._end = head + 4, head + 4 + length
        if self._end and self._filled >= self._end and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or EOFError("the server hung up"))


class _Question:
    """A request as it is sent, and its answers as they come."""

    def __init__(self, request: Request) -> None:
        body = request.body.encode()
        head = f"POST {request.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wire = head.encode() + body
        self._answers = {answer.encode(): number for number, answer in reversed([*enumerate(request.answers)])}

    def outcome(self, status: int, body: memoryview) -> int:
        """Number of the release that gave the answer, or what is wrong with it."""
        if status != HTTP_OK:
            return FAILED
        # It stands near the beginning of every answer that may have it.
        if DEGRADED in bytes(body[:_BEGINNING]):
            return LESS
        return self._answers.get(bytes(body), MIXED) if self._answers else 0


@dataclass
class _Load:
    plan: Plan
    started: float
    next: int = 0
    rows: list[tuple[float, float, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._questions = [_Question(each) for each in self.plan.requests]

    @property
    def total(self) -> int:
        return max(1, int(self.plan.rate * self.plan.seconds))

    async def connection(self) -> None:
        """Take the next request that is due, as long as there are any."""
        connection: _Connection | None = None
        made = 0
        while (number := self.next) < self.total:
            self.next += 1
            due = self.started + number / self.plan.rate
            if (now := time.monotonic()) - due > self.plan.give_up_s:
                self.rows.append((due, now, now, FAILED))
                continue
            await asyncio.sleep(max(0.0, due - now))
            sent, outcome = time.monotonic(), FAILED
            try:
                if connection is None or made % REQUESTS_A_CONNECTION == 0:
                    if connection is not None:
                        connection.close()
                    connection = await self._connect()
                async with asyncio.timeout(PATIENCE_S):
                    question = self._questions[number % len(self._questions)]
                    outcome = question.outcome(*await connection.ask(question.wire))
            except (OSError, EOFError, TimeoutError):
                connection = None
            made += 1
            self.rows.append((due, sent, time.monotonic(), outcome))
        if connection is not None:
            connection.close()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Connection, "127.0.0.1", self.plan.port))[1]


async def send(plan: Plan) -> Outcomes:
    """Send everything, and wait for the answers."""
    load = _Load(plan=plan, started=time.monotonic())
    await asyncio.gather(*(load.connection() for _ in range(plan.connections)))
    return _outcomes(load.rows)


def _outcomes(rows: Sequence[tuple[float, float, float, int]]) -> Outcomes:
    due, sent, received, outcome = np.array(sorted(rows), np.float64).reshape(-1, 4).T
    return Outcomes(due=due, sent=sent, received=received, outcome=outcome.astype(np.int64))


def save_plan(plan: Plan, file: Path) -> None:
    """Write a plan for `main`."""
    file.write_text(json.dumps(asdict(plan)))


def load_plan(file: Path) -> Plan:
    """Read a plan back."""
    raw = json.loads(file.read_text())
    requests = tuple(Request(**{**each, "answers": tuple(each["answers"])}) for each in raw.pop("requests"))
    return Plan(**raw, requests=requests)


def load_outcomes(file: Path) -> Outcomes:
    """Read what `main` left."""
    with np.load(file) as stored:
        return Outcomes(**stored)


def main(plan: Path, out: Path) -> None:
    """Send what a plan says and leave the outcomes in a file."""
    found = asyncio.run(send(load_plan(plan)))
    np.savez(out, **asdict(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
