"""The load generator against a server whose answers are known, and what is said of invented outcomes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.document import benchmarks_text
from tests.benchmarks.figures.results import Results
from tests.benchmarks.serving import result_row
from tests.benchmarks.serving_load.client import (
    FAILED,
    MIXED,
    Outcomes,
    Plan,
    Request,
    load_plan,
    save_plan,
    send,
)
from tests.benchmarks.serving_load.made_run import Size
from tests.benchmarks.serving_load.promote import Change, Found, Load
from tests.benchmarks.serving_load.server import Held

STATUSES = {"/whole": "200 OK", "/mixed": "200 OK", "/failed": "429 Too Many Requests"}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo the body of each request, with the status of its path; `/gone` ends the connection."""
    while head := await reader.readline():
        path = head.split()[1].decode()
        length = 0
        while line := (await reader.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = await reader.readexactly(length)
        if path == "/gone":
            break
        writer.write(f"HTTP/1.1 {STATUSES[path]}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    writer.close()


async def outcomes(requests: tuple[Request, ...], count: int) -> Outcomes:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        plan = Plan(port=port, rate=200.0, seconds=count / 200.0, connections=3, requests=requests)
        return await send(plan)


def test_client_tells_answers_of_each_release_from_mixed_and_failed_ones() -> None:
    asked = (
        Request(path="/whole", body="a", answers=("a", "b")),
        Request(path="/whole", body="b", answers=("a", "b")),
        Request(path="/mixed", body="c", answers=("a", "b")),
        Request(path="/failed", body="a", answers=("a", "b")),
        Request(path="/gone", body="a", answers=("a", "b")),
    )
    found = asyncio.run(outcomes(asked, 20))
    assert [found.count(each) for each in (0, 1, MIXED, FAILED)] == [4, 4, 4, 8]
    assert np.allclose(np.diff(found.due), 1 / 200)
    assert (found.sent >= found.due - 0.002).all()
    assert (found.received >= found.sent).all()


def test_plan_is_read_back(tmp_path: Path) -> None:
    request = Request(path="/v1/rank", body='{"user_id": 1}', answers=("a", "b"))
    plan = Plan(port=80, rate=2.0, seconds=3.0, connections=4, requests=(request,))
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


@pytest.fixture
def found() -> Found:
    """A promotion at 10 s and a rollback at 12 s; the old release was asked for the last time 0.5 and 0.25 s later."""
    rows = [(9.0, 9.1, 0), (10.25, 10.3, 1), (10.5, 10.6, 0), (11.0, 11.1, 1), (12.25, 12.3, 1), (12.5, 12.75, 0)]
    sent, received, outcome = np.array(rows).T
    made = Outcomes(due=sent, sent=sent, received=received, outcome=outcome.astype(np.int64))
    held = [(Held(resident_mb=100.0 + number, handles=20),) for number in range(2)]
    changes = (Change(release=1, began=10.0, held=held[0]), Change(release=0, began=12.0, held=held[1]))
    return Found(outcomes=made, changes=changes)


def test_delays_are_counted_from_the_change(found: Found) -> None:
    assert found.first_s() == pytest.approx([0.3, 0.75])
    assert found.last_s() == pytest.approx([0.5, 0.25])
    assert (found.failed, found.mixed) == (0, 0)
    assert (found.resident_growth_mb(), found.handle_growth()) == (1.0, 0)


def test_document_shows_what_was_measured_beside_the_goals(found: Found) -> None:
    row = result_row(Load(size=Size()), found, machine="invented", commit="0123")
    assert (row.name, row.ours, row.n) == ("promote_under_load", 0.375, 6)
    text = benchmarks_text(Results(rows=(row,)))
    assert "| 6 | 0 | 0 | 0.525 | 0.375, 0.5 |" in text
    assert "0 failed, 0 mixed: met; last within 1 s: met" in text
