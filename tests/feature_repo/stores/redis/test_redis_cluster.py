"""The Redis store on a cluster: slots that move between reads and writes, and a node that is gone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from feast import ValueType

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.packed.entity_keys import JoinKey, entity_keys
from tests.feature_repo.stores.online_contract import HOUR, V1, V2, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, embedding_rows, feature_store, new_ids, write
from tests.feature_repo.stores.servers import HOST, running_cluster, running_replica

PACKED = "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"
PIN_KEY = [JoinKey(name="pin_id", kind=ValueType.INT64)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterUnderTest:
    """A store on three nodes, and plain connections to them."""

    online: OnlineUnderTest
    nodes: list[redis.Redis]

    def ids(self) -> list[str]:
        """Names of the nodes in the cluster."""
        return [str(node.execute_command("CLUSTER", "MYID").decode()) for node in self.nodes]

    def holder(self, key: bytes) -> int:
        """The node that has a key."""
        return next(place for place, node in enumerate(self.nodes) if key in set(node.scan_iter(count=1000)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(folder / "nodes") as ports:
        yield ClusterUnderTest(
            online=OnlineUnderTest.applied(folder, _settings(ports)),
            nodes=[redis.Redis(HOST, port) for port in ports],
        )


def _settings(ports: list[int]) -> dict[str, Any]:
    addresses = ",".join(f"{HOST}:{port}" for port in ports)
    return {"type": PACKED, "redis_type": "redis_cluster", "connection_string": addresses}


def _keys(ids: Any) -> list[bytes]:
    return entity_keys(PIN_KEY, [pa.array(ids, pa.int64())], b"contract")


def test_cluster_keeps_keys_on_all_nodes_in_order(cluster: ClusterUnderTest) -> None:
    online, ids = cluster.online, new_ids(300)
    before = [node.dbsize() for node in cluster.nodes]
    assert write(online.store, V1, embedding_rows(V1, ids, value=2)) == 300
    assert write(online.store, V1, embedding_rows(V1, ids, value=1, at=NOON - HOUR)) == 0
    assert all(node.dbsize() - held > 50 for node, held in zip(cluster.nodes, before, strict=True))
    assert (online.reader.read_matrix(V1, ids, now=NOON)[0] == 2).all()


def test_views_of_one_read_come_from_all_nodes(cluster: ClusterUnderTest) -> None:
    online, ids = cluster.online, new_ids(50)
    for view, value in ((V1, 1), (V2, 2)):
        write(online.store, view, embedding_rows(view, ids, value=value))
    rows = online.reader.read("both", ids, now=NOON)
    assert {view: set(found.column("clicks").to_pylist()) for view, found in rows.items()} == {V1: {1}, V2: {2}}


def test_stock_client_reads_a_cluster_that_we_wrote(cluster: ClusterUnderTest) -> None:
    ids = new_ids(100)
    write(cluster.online.store, V1, embedding_rows(V1, ids, value=2))
    stock = feature_store(cluster.online.folder, {**cluster.online.settings, "type": "redis"})
    answer = stock.get_online_features([f"{V1}:clicks"], {"pin_id": ids.tolist()}).to_dict()
    assert answer["clicks"] == [2] * 100


def test_every_node_gets_the_script_again_when_it_forgot_it(cluster: ClusterUnderTest) -> None:
    ids = new_ids(100)
    write(cluster.online.store, V1, embedding_rows(V1, ids))
    for node in cluster.nodes:
        node.script_flush()
    assert write(cluster.online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR)) == 100


def test_slot_on_its_way_is_read_and_written_where_the_key_is(cluster: ClusterUnderTest) -> None:
    """The cluster answers ASK for keys that have left a slot which is still the old node's."""
    online, ids = cluster.online, new_ids(20)
    write(online.store, V1, embedding_rows(V1, ids, value=1))
    key = _keys(ids)[7]
    source = cluster.holder(key)
    target = (source + 1) % len(cluster.nodes)
    slot = cluster.nodes[0].execute_command("CLUSTER", "KEYSLOT", key)
    names = cluster.ids()
    _set_slot(cluster.nodes[target], slot, "IMPORTING", names[source])
    _set_slot(cluster.nodes[source], slot, "MIGRATING", names[target])
    port = cluster.nodes[target].connection_pool.connection_kwargs["port"]
    cluster.nodes[source].execute_command("MIGRATE", HOST, port, key, 0, 5000)
    try:
        assert (online.reader.read_matrix(V1, ids, now=NOON)[0] == 1).all()
        assert write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR)) == 20
        assert write(online.store, V1, embedding_rows(V1, ids, value=3)) == 0
        assert online.clicks(V1, ids, NOON + HOUR) == [2] * 20
        assert cluster.holder(key) == target
    finally:
        for node in (cluster.nodes[target], cluster.nodes[source]):
            _set_slot(node, slot, "NODE", names[target])


def test_slots_that_have_moved_are_found_by_clients_that_knew_the_old_layout(cluster: ClusterUnderTest) -> None:
    """The cluster answers MOVED."""
    online, ids = cluster.online, new_ids(60)
    write(online.store, V1, embedding_rows(V1, ids, value=1))
    names, keys = cluster.ids(), _keys(ids)
    slots = {cluster.nodes[0].execute_command("CLUSTER", "KEYSLOT", key): key for key in keys[:5]}
    moved_to = {}
    for slot, key in slots.items():
        source = cluster.holder(key)
        target = (source + 1) % len(cluster.nodes)
        _set_slot(cluster.nodes[target], slot, "IMPORTING", names[source])
        _set_slot(cluster.nodes[source], slot, "MIGRATING", names[target])
        port = cluster.nodes[target].connection_pool.connection_kwargs["port"]
        for held in cluster.nodes[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            cluster.nodes[source].execute_command("MIGRATE", HOST, port, held, 0, 5000)
        for node in (target, source, *({0, 1, 2} - {target, source})):
            _set_slot(cluster.nodes[node], slot, "NODE", names[target])
        moved_to[slot] = target
    # Until its nodes agree, a cluster sends a client to and fro. Gossip sent before the move may undo it in a node.
    deadline = time.monotonic() + 60
    while disagreeing := [slot for slot in slots if len({_owner(node, slot) for node in cluster.nodes}) > 1]:
        assert time.monotonic() < deadline, "nodes must agree on who holds a slot"
        time.sleep(0.5)
        for slot in disagreeing:
            _set_slot(cluster.nodes[moved_to[slot]], slot, "NODE", names[moved_to[slot]])
            cluster.nodes[moved_to[slot]].execute_command("CLUSTER", "BUMPEPOCH")
    assert (online.reader.read_matrix(V1, ids, now=NOON)[0] == 1).all()
    assert write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR)) == 60
    assert online.clicks(V1, ids, NOON + HOUR) == [2] * 60


def _owner(node: redis.Redis, slot: int) -> int | None:
    """Port of the node that a node takes for the slot's, if it knows one."""
    ranges = node.execute_command("CLUSTER", "SLOTS")
    return next((int(primary[1]) for first, last, primary, *_ in ranges if first <= slot <= last), None)


def _set_slot(node: redis.Redis, slot: int, *state: str) -> None:
    node.execute_command("CLUSTER", "SETSLOT", slot, *state)


def test_write_goes_on_when_a_node_dies_in_the_middle_and_its_replica_takes_over(tmp_path: Path) -> None:
    """The cluster needs its node timeout, and an election, to replace a node."""
    ids, timeout_ms = np.arange(10_000), 1200
    with (
        running_cluster(tmp_path / "nodes", node_timeout_ms=timeout_ms) as ports,
        running_replica(tmp_path / "replica", ports[1], timeout_ms),
    ):
        online = OnlineUnderTest.applied(tmp_path, _settings(ports))
        packed, view = online.store._get_provider().online_store, online.store.get_feature_view(V1)
        killed: list[int] = []

        def kill_once(_: int) -> None:
            if not killed:
                killed.append(ports[1])
                redis.Redis(HOST, ports[1]).shutdown(nosave=True)

        assert packed.write_table(online.store.config, view, embedding_rows(V1, ids), kill_once) == len(ids)
        # What the old node took last it may not have passed on.
        packed.write_table(online.store.config, view, embedding_rows(V1, ids))
        assert (online.reader.read_matrix(V1, ids, now=NOON)[2] == "present").all()


@pytest.mark.usefixtures("_without_waiting")
def test_node_that_is_gone_is_an_error_with_the_view_and_the_rest_is_whole(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "nodes") as ports:
        online, ids = OnlineUnderTest.applied(tmp_path, _settings(ports)), np.arange(60)
        write(online.store, V1, embedding_rows(V1, ids, value=1))
        gone = redis.Redis(HOST, ports[1])
        held = set(gone.keys())
        gone.shutdown(nosave=True)
        with pytest.raises(OnlineStoreUnavailableError, match=f"{HOST}:{ports[0]}.*answer for feature view {V1}"):
            online.reader.read_matrix(V1, ids, now=NOON)
        with pytest.raises(OnlineStoreUnavailableError, match=f"{HOST}:{ports[0]}.*feature view {V1}"):
            write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR))
        left = [place for place, key in zip(ids.tolist(), _keys(ids), strict=True) if key not in held]
        served = itertools.chain(*(redis.Redis(HOST, port).keys() for port in (ports[0], ports[2])))
        assert set(served) == {_keys([place])[0] for place in left}
