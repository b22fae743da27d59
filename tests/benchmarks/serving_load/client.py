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

import numpy as np
import numpy.typing as npt

FAILED, MIXED, LESS = -1, -2, -3
"""Outcomes: no answer with status 200, one that no release gives, and one that says it is less than it could be."""
DEGRADED = '"degraded":{'
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


@dataclass
class _Load:
    plan: Plan
    started: float
    next: int = 0
    rows: list[tuple[float, float, float, int]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return int(self.plan.rate * self.plan.seconds)

    async def connection(self) -> None:
        """Take the next request that is due, as long as there are any."""
        reader = writer = None
        made = 0
        while (number := self.next) < self.total:
            self.next += 1
            due = self.started + number / self.plan.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sent, outcome = time.monotonic(), FAILED
            try:
                if writer is None or made % REQUESTS_A_CONNECTION == 0:
                    if writer is not None:
                        writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
                assert reader is not None
                async with asyncio.timeout(PATIENCE_S):
                    outcome = await _ask(reader, writer, self.plan.requests[number % len(self.plan.requests)])
            except (OSError, EOFError, TimeoutError):
                writer = None
            made += 1
            self.rows.append((due, sent, time.monotonic(), outcome))
        if writer is not None:
            writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> int:
    body = request.body.encode()
    head = f"POST {request.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    answer = (await reader.readexactly(length)).decode()
    if b" 200 " not in lines[0]:
        return FAILED
    if DEGRADED in answer:
        return LESS
    if not request.answers:
        return 0
    return request.answers.index(answer) if answer in request.answers else MIXED


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
