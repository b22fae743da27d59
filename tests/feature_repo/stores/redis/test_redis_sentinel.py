"""The Redis store behind a Sentinel: who the master is, and a fail-over in the middle of a write."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from tests.feature_repo.stores.online_contract import HOUR, V1, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, embedding_rows, new_ids, write
from tests.feature_repo.stores.servers import HOST, running, wait_for_replica

PACKED = "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"
MASTER = "headwater"
_DEADLINE_S = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """A master and a replica that a Sentinel watches."""

    online: OnlineUnderTest
    master: int
    replica: int
    sentinel: int

    def wait_for_master(self, port: int) -> None:
        """Return once the Sentinel names this server and it takes writes."""
        deadline = time.monotonic() + _DEADLINE_S
        with redis.Redis(HOST, self.sentinel) as sentinel, redis.Redis(HOST, port) as server:
            while True:
                named = sentinel.sentinel_get_master_addr_by_name(MASTER)
                if named == (HOST.encode(), port) and server.info("replication")["role"] == "master":
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the Sentinel must name {port} within {_DEADLINE_S} seconds (got {named})")
                time.sleep(0.02)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(running(tmp_path / "master", "--repl-diskless-sync-delay", "0"))
        follow = ("--replicaof", HOST, str(master), "--repl-diskless-sync-delay", "0")
        replica = stack.enter_context(running(tmp_path / "replica", *follow))
        wait_for_replica(replica)
        rules = (
            f"sentinel monitor {MASTER} {HOST} {master} 1",
            f"sentinel down-after-milliseconds {MASTER} 200",
            f"sentinel failover-timeout {MASTER} 2000",
        )
        sentinel = stack.enter_context(running(tmp_path / "sentinel", "--sentinel", *rules))
        _wait_for_known_replica(sentinel)
        kind = {"redis_type": "redis_sentinel", "sentinel_master": MASTER}
        settings = {"type": PACKED, "connection_string": f"{HOST}:{sentinel}", **kind}
        online = OnlineUnderTest.applied(tmp_path, settings)
        yield Watched(online=online, master=master, replica=replica, sentinel=sentinel)


def _wait_for_known_replica(sentinel: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    with redis.Redis(HOST, sentinel) as client:
        while not any(_may_be_promoted(found) for found in client.sentinel_slaves(MASTER)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Sentinel must find the replica within {_DEADLINE_S} seconds")
            time.sleep(0.02)


def _may_be_promoted(replica: dict[str, Any]) -> bool:
    return replica["flags"] == "slave" and replica["info-refresh"] < 10_000 and replica["master-link-status"] == "ok"


def test_sentinel_leads_to_its_master(watched: Watched) -> None:
    write(watched.online.store, V1, embedding_rows(V1, [1, 2], value=2))
    assert watched.online.clicks(V1, [2, 3]) == [2, None]
    assert redis.Redis(HOST, watched.master).dbsize() == 2


def test_reads_and_writes_go_on_with_the_new_master_after_a_switch(watched: Watched) -> None:
    """Connections to the old master stay open: it has become a replica, which refuses writes."""
    online, ids = watched.online, new_ids(20)
    write(online.store, V1, embedding_rows(V1, ids, value=1))
    redis.Redis(HOST, watched.sentinel).execute_command("SENTINEL", "FAILOVER", MASTER)
    watched.wait_for_master(watched.replica)
    assert write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR)) == 20
    assert online.clicks(V1, ids, NOON + HOUR) == [2] * 20


def test_write_goes_on_when_the_master_dies_in_the_middle(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    # redis-py would wait for seconds between its looks at the Sentinel.
    monkeypatch.setattr("redis.retry.sleep", lambda seconds: time.sleep(min(seconds, 0.2)))
    online, ids = watched.online, np.arange(10_000)
    packed, view = online.store._get_provider().online_store, online.store.get_feature_view(V1)
    killed: list[int] = []

    def kill_once(_: int) -> None:
        if not killed:
            killed.append(watched.master)
            with contextlib.suppress(redis.ConnectionError):
                redis.Redis(HOST, watched.master).shutdown(nosave=True)

    assert packed.write_table(online.store.config, view, embedding_rows(V1, ids), kill_once) == len(ids)
    watched.wait_for_master(watched.replica)
    # What the old master took last it may not have passed on.
    packed.write_table(online.store.config, view, embedding_rows(V1, ids))
    vectors, _, status = online.reader.read_matrix(V1, ids, now=NOON)
    assert set(status.tolist()) == {"present"}
    assert (vectors == 1).all()


@pytest.mark.usefixtures("_without_waiting")
def test_master_that_nobody_replaces_is_an_error_with_view_and_sentinel(watched: Watched) -> None:
    online, address = watched.online, f"{HOST}:{watched.sentinel}"
    redis.Redis(HOST, watched.sentinel).execute_command("SENTINEL", "SET", MASTER, "quorum", "9")
    write(online.store, V1, embedding_rows(V1, [1]))
    with contextlib.suppress(redis.ConnectionError):
        redis.Redis(HOST, watched.master).shutdown(nosave=True)
    with pytest.raises(OnlineStoreUnavailableError, match=f"Redis {address} must take every row for feature view {V1}"):
        write(online.store, V1, embedding_rows(V1, [1]))
    with pytest.raises(OnlineStoreUnavailableError, match=f"Redis {address} must answer for feature view {V1}"):
        online.reader.read_matrix(V1, [1])
