"""Processes that materialize: killed again and again, or two at once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from feast import FeatureStore

from feature_repo.stores.engine.journal import Journal, MaterializationInProgressError, Probe
from feature_repo.stores.engine.writer import ChunkWriter, LostRowsError
from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from tests.feature_repo.stores.engine.engine_repos import (
    END,
    ENGINE,
    PACKED_MILVUS,
    PACKED_REDIS,
    PACKED_SQLITE,
    REGISTRY,
    START,
    open_repo,
    pins,
    read,
    vector_view,
    vectors,
    write_vectors,
)
from tests.feature_repo.stores.servers import free_port, running

NUM_ROWS, CHUNK_ROWS = 600, 30
NUM_KILLS = 4
_HERE = "tests.feature_repo.stores.engine.test_engine_processes"


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes of a fresh one that has imported Feast, and so has no threads of other tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_HERE])
    return context


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(tmp_path_factory.mktemp("redis")) as port:
        yield port


def online_settings(kind: str, folder: Path, port: int, database: int) -> dict[str, Any]:
    """`online_store` of a repo; Redis keeps each repo in a database of its own."""
    if kind == PACKED_REDIS:
        return {"type": kind, "connection_string": f"127.0.0.1:{port},db={database}"}
    return {"type": kind, "path": str(folder / "data" / "online.db")}


def opened(folder: Path, online: dict[str, Any]) -> FeatureStore:
    engine = {"type": ENGINE, "chunk_rows": CHUNK_ROWS}
    # Feast's own registry file is not written in one step: a kill could leave half of it.
    registry = {"registry_store_type": REGISTRY}
    return open_repo(folder, [vector_view(folder)], engine=engine, online=online, registry=registry)


def materialize(folder: Path, online: dict[str, Any]) -> None:
    opened(folder, online).materialize(START, END)


def materialize_until_killed(folder: Path, online: dict[str, Any]) -> None:
    """Die when a third chunk is in the online store, and not yet in the journal."""
    complete = Journal.complete

    def killed(self: Journal, rows: int, probes: list[Probe]) -> None:
        if rows > 2 * CHUNK_ROWS:
            os.kill(os.getpid(), signal.SIGKILL)
        complete(self, rows, probes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "complete", killed)
        materialize(folder, online)


def stored(folder: Path, online: dict[str, Any]) -> tuple[dict[str, list[Any]], list[Any]]:
    """What the online store answers, and the intervals on record."""
    store = opened(folder, online)
    answer = read(store, "vectors", pins(NUM_ROWS + 1))
    intervals = store.get_feature_view("vectors").materialization_intervals
    disconnect = getattr(store._get_provider().online_store, "disconnect", None)
    if disconnect:
        disconnect()
    return answer, intervals


def started(
    processes: ForkServerContext,
    folder: Path,
    online: dict[str, Any],
    target: Callable[[Path, dict[str, Any]], None] = materialize,
) -> ForkServerProcess:
    process = processes.Process(target=target, args=(folder, online))
    process.start()
    return process


def kill_somewhere(process: ForkServerProcess, folder: Path, moments: random.Random) -> int | None:
    """Kill a process before its first chunk, or in or between chunks that come some way after those on record."""
    goal = moments.choice([0, num_lines(folder) + moments.randint(1, 6)])
    wait_for_lines(process, folder, goal)
    process.join(moments.uniform(0.0, 0.08 if goal else 0.6))
    process.kill()
    process.join()
    return process.exitcode


def wait_for_lines(process: ForkServerProcess, folder: Path, goal: int) -> None:
    """Until the journal has so many lines, or the process has ended."""
    while process.is_alive() and num_lines(folder) < goal:
        time.sleep(0.002)


def num_lines(folder: Path) -> int:
    journal = folder / "data" / "materialize" / "engine.vectors.jsonl"
    return journal.read_text().count("\n") if journal.exists() else 0


@pytest.mark.parametrize("kind", [PACKED_SQLITE, PACKED_REDIS, PACKED_MILVUS, "sqlite"])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(
    tmp_path: Path, processes: ForkServerContext, redis_port: int, kind: str
) -> None:
    if kind == PACKED_MILVUS:
        pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")
    folder, alone = tmp_path / "killed", tmp_path / "alone"
    for each in (folder, alone):
        write_vectors(each, vectors(NUM_ROWS))
    one, other = (online_settings(kind, each, redis_port, at) for at, each in enumerate((folder, alone)))

    unbroken = started(processes, alone, other)
    unbroken.join()
    moments = random.Random(7)
    kills = [kill_somewhere(started(processes, folder, one), folder, moments) for _ in range(NUM_KILLS)]
    last = started(processes, folder, one)
    last.join()
    assert (unbroken.exitcode, last.exitcode) == (0, 0)
    assert kills.count(-signal.SIGKILL) > NUM_KILLS // 2
    found, intervals = stored(folder, one)
    expected, _ = stored(alone, other)
    assert found == expected
    assert found["count"][-2:] == [10 * (NUM_ROWS - 1), None]
    assert intervals == [(START, END)]
    assert list((folder / "data" / "materialize").glob("*.jsonl")) == []


def test_killed_process_is_continued_after_its_last_complete_chunk(
    tmp_path: Path, processes: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vectors(tmp_path, vectors(4 * CHUNK_ROWS))
    online = online_settings(PACKED_SQLITE, tmp_path, 0, 0)
    dying = started(processes, tmp_path, online, materialize_until_killed)
    dying.join()
    assert (dying.exitcode, num_lines(tmp_path)) == (-signal.SIGKILL, 3)
    store = opened(tmp_path, online)
    assert store.get_feature_view("vectors").materialization_intervals == []
    first_keys: list[int] = []
    write = ChunkWriter.write

    def watched(self: ChunkWriter, table: pa.Table) -> None:
        first_keys.append(table["pin_id"][0].as_py())
        write(self, table)

    monkeypatch.setattr(ChunkWriter, "write", watched)
    store.materialize(START, END)
    assert first_keys == [2 * CHUNK_ROWS, 3 * CHUNK_ROWS]
    assert read(store, "vectors", pins(4 * CHUNK_ROWS))["count"] == [10 * key for key in range(4 * CHUNK_ROWS)]
    assert store.get_feature_view("vectors").materialization_intervals == [(START, END)]


def test_server_that_is_full_or_read_only_is_named_and_takes_the_rest_afterwards(tmp_path: Path) -> None:
    write_vectors(tmp_path, vectors(NUM_ROWS))
    with running(tmp_path / "server") as port, redis.Redis(port=port) as server:
        online = online_settings(PACKED_REDIS, tmp_path, port, 0)
        store = opened(tmp_path, online)
        server.config_set("maxmemory", int(server.info("memory")["used_memory"]) + 100_000)
        with pytest.raises(OnlineStoreUnavailableError, match=r"feature view vectors"):
            store.materialize(START, END)
        assert 0 < num_lines(tmp_path) < NUM_ROWS // CHUNK_ROWS
        server.config_set("maxmemory", 0)
        server.replicaof("127.0.0.1", "1")
        with pytest.raises(OnlineStoreUnavailableError, match=r"feature view vectors"):
            store.materialize(START, END)
        assert store.get_feature_view("vectors").materialization_intervals == []
        server.replicaof("no", "one")
        store.materialize(START, END)
        found, intervals = stored(tmp_path, online)
    assert found["count"] == [*(10 * key for key in range(NUM_ROWS)), None]
    assert intervals == [(START, END)]


def test_server_that_restarts_empty_in_the_middle_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the server had taken are gone, so the view is not whole until it is materialized again."""
    write_vectors(tmp_path, vectors(NUM_ROWS))
    write, port = ChunkWriter.write, free_port()
    with ExitStack() as servers:
        servers.enter_context(running(tmp_path / "server", port=port))
        store = opened(tmp_path, online_settings(PACKED_REDIS, tmp_path, port, 0))

        def restarting(self: ChunkWriter, table: pa.Table) -> None:
            if table["pin_id"][0].as_py() == 10 * CHUNK_ROWS:
                servers.close()
                servers.enter_context(running(tmp_path / "server", port=port))
            write(self, table)

        monkeypatch.setattr(ChunkWriter, "write", restarting)
        with pytest.raises((LostRowsError, OnlineStoreUnavailableError), match=r"feature view vectors"):
            store.materialize(START, END)
        monkeypatch.setattr(ChunkWriter, "write", write)
        assert store.get_feature_view("vectors").materialization_intervals == []
        store.materialize(START, END)
        assert read(store, "vectors", pins(NUM_ROWS))["count"] == [10 * key for key in range(NUM_ROWS)]


def test_process_that_comes_second_is_refused_and_leaves_the_first_to_its_work(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    write_vectors(tmp_path, vectors(NUM_ROWS))
    online = online_settings(PACKED_SQLITE, tmp_path, 0, 0)
    second = opened(tmp_path, online)
    first = started(processes, tmp_path, online)
    wait_for_lines(first, tmp_path, 2)
    second.refresh_registry()
    expected = rf"feature view vectors must be materialized by one process at a time .*process {first.pid} on "
    with pytest.raises(MaterializationInProgressError, match=expected):
        second.materialize(START, END)
    first.join()
    assert first.exitcode == 0
    found, intervals = stored(tmp_path, online)
    assert found["count"] == [*(10 * key for key in range(NUM_ROWS)), None]
    assert intervals == [(START, END)]
