"""The load generator against a server whose answers are known, and what is said of invented outcomes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.document import benchmarks_text
from tests.benchmarks.figures.results import ResultRow, Results, write_rows
from tests.benchmarks.serving import merged_rows, result_row
from tests.benchmarks.serving_load.baselines import compared
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
from tests.benchmarks.serving_load.journal import Journal
from tests.benchmarks.serving_load.made_run import Size
from tests.benchmarks.serving_load.promote import Change, Found, Load
from tests.benchmarks.serving_load.rates import AtRate, found_at, highest_rate
from tests.benchmarks.serving_load.server import Held, Server

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


def test_client_gives_up_on_what_is_far_too_late() -> None:
    asked = Request(path="/whole", body="a", answers=("a",))

    async def late() -> Outcomes:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await send(Plan(port=port, rate=1e6, seconds=2e-3, connections=1, requests=(asked,), give_up_s=0.05))

    found = asyncio.run(late())
    assert len(found.due) == 2000
    assert 0 < found.count(FAILED) < 2000


def test_journal_measures_once_at_a_commit(tmp_path: Path) -> None:
    asked: list[str] = []

    def measured(journal: Journal) -> float:
        return float(journal.once(["rank", 1], lambda: asked.append("rank") or 2.5))

    assert [measured(Journal(tmp_path / "kept", commit)) for commit in ("a", "a", "b")] == [2.5] * 3
    assert len(asked) == 2
    Journal(tmp_path / "kept", "a").forget()
    assert not Journal(tmp_path / "kept", "a").has(["rank", 1])


def test_two_ways_are_compared_in_turns() -> None:
    asked: list[str] = []
    found = compared(lambda _: asked.append("ours"), lambda _: asked.append("theirs"), repeats=1)
    assert asked == [*["ours"] * 2, *["theirs"] * 2] * 5
    assert found.ours_ms >= 0
    assert found.spread_ms >= 0


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
    return Found(outcomes=made, changes=changes, cpu_s=0.3)


def test_delays_are_counted_from_the_change(found: Found) -> None:
    assert found.first_s() == pytest.approx([0.3, 0.75])
    assert found.last_s() == pytest.approx([0.5, 0.25])
    assert (found.failed, found.mixed) == (0, 0)
    assert (found.resident_growth_mb(), found.handle_growth()) == (1.0, 0)
    assert found.cpu_ms == pytest.approx(50.0)


def test_document_shows_what_was_measured_beside_the_goals(found: Found) -> None:
    row = result_row(Load(size=Size()), found, machine="invented", commit="0123")
    assert (row.name, row.ours, row.n) == ("promote_under_load", 0.375, 6)
    text = benchmarks_text(Results(rows=(row,)))
    assert "| 6 | 0 | 0 | 0.525 | 0.375, 0.5 |" in text
    assert "| 100.0, 175.0, 242.5, 249.3, 250.0 | 50.0 | 1.0, 0 | 0 failed, 0 mixed: met; last within 1 s: met" in text


def rated(latencies_ms: list[float], failed: int = 0) -> AtRate:
    """Outcomes of a rate with these latencies."""
    due = np.arange(len(latencies_ms)) / 10.0
    outcome = np.array([FAILED] * failed + [0] * (len(latencies_ms) - failed))
    made = Outcomes(due=due, sent=due, received=due + np.array(latencies_ms) / 1000, outcome=outcome)
    return found_at(10.0, made, own_share=0.1)


def test_percentiles_are_of_every_latency() -> None:
    found = rated([float(number) for number in range(1, 102)])
    assert (found.latencies_ms["p50"], found.latencies_ms["p99"], found.latencies_ms["max"]) == (51.0, 100.0, 101.0)
    assert not found.kept_up


@pytest.mark.parametrize(("latency", "failed", "kept"), [(49.0, 0, True), (51.0, 0, False), (1.0, 1, False)])
def test_rate_is_kept_up_while_nearly_all_answers_come_soon(latency: float, failed: int, kept: bool) -> None:
    assert rated([latency] * 20, failed).kept_up is kept


def test_server_counts_the_cpu_that_its_processes_take() -> None:
    server = Server(port=1, supervisor=os.getpid())
    before, until = server.cpu_s(), time.process_time() + 5.0
    # The kernel counts in ticks.
    while server.cpu_s() == before and time.process_time() < until:
        pass
    assert 0.0 < server.cpu_s() - before < 10.0


def test_highest_rate_is_the_last_of_a_rising_series_that_was_kept_up() -> None:
    asked: list[float] = []

    def at(rate: float) -> AtRate:
        asked.append(rate)
        return rated([10.0 if rate < 150 else 90.0] * 20)

    assert highest_rate(at, 100.0) == 125.0
    assert asked == [100.0, 125.0, 156.25]
    assert highest_rate(at, 200.0) == 0.0


ROW = {
    "params": {
        "dataset": "made", "corpus": 1000, "dim": 64, "store": "redis", "candidates": 500, "rate": 100.0, "failed": 0,
        "degraded": 0, "p50_ms": 8.0, "p90_ms": 12.0, "p99_ms": 20.0, "p99.9_ms": 30.0, "max_ms": 31.0,
        "own_share": 0.15, "cpu_ms": 9.5, "highest_rate": 180.0, "recall": 0.995,
    },
    "unit": "ms", "ours": 8.0, "n": 100, "machine": "invented", "commit": "0123",
}  # fmt: skip


def test_document_shows_routes_beside_their_goals() -> None:
    rows = tuple(
        ResultRow.model_validate(ROW | {"name": name} | more)
        for name, more in (("recommend", {}), ("rank", {"stock": 100.0}), ("retrieve", {"raw": 7.0}))
    )
    text = benchmarks_text(Results(rows=rows))
    assert "| 15 % | 9.5 | 180 |" in text
    assert "p99 ≤ 25 ms at 100 requests/s: met; own share ≤ 20 %: met" in text
    assert "feast serve 100.0 ms, ours 8.0 ms: 12.5× | ≥ 10×: met" in text
    assert "1.14×; recall 0.995 | ≤ 1.2×: met; recall ≥ 0.99: met" in text


def test_rows_that_were_not_measured_stay(tmp_path: Path) -> None:
    def row(name: str, dataset: str, ours: float) -> ResultRow:
        return ResultRow.model_validate(ROW | {"name": name, "ours": ours, "params": {"dataset": dataset}})

    write_rows("serving", [row("rank", "made", 1.0), row("rank", "kuairand", 2.0)], tmp_path)
    found = merged_rows([row("rank", "made", 3.0)], tmp_path)
    assert [(each.params["dataset"], each.ours) for each in found] == [("kuairand", 2.0), ("made", 3.0)]
