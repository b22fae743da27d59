"""The Redis store: the contract on one server, Feast's own client on the same server, and servers in trouble."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis
from feast import FeatureStore, ValueType

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.packed.entity_keys import JoinKey, entity_keys
from feature_repo.stores.packed.reader import PackedReader
from tests.feature_repo.stores.interchange import assert_stock_reads_ours, assert_we_read_stock
from tests.feature_repo.stores.online_contract import HOUR, MICROSECOND, V1, OnlineStoreContract, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, embedding_rows, feature_store, new_ids, write
from tests.feature_repo.stores.servers import HOST, free_port, running, running_cluster, wait_for_replica

PACKED = "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"
PIN_KEY = [JoinKey(name="pin_id", kind=ValueType.INT64)]


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineUnderTest]:
    folder = tmp_path_factory.mktemp("redis")
    with running(folder / "server") as port:
        yield OnlineUnderTest.applied(folder, {"type": PACKED, "connection_string": f"{HOST}:{port}"})


class TestPackedRedis(OnlineStoreContract):
    """The contract on one server."""


@pytest.fixture
def stock(online: OnlineUnderTest) -> FeatureStore:
    """Feast's own client of the same server."""
    return feature_store(online.folder, {"type": "redis", "connection_string": online.settings["connection_string"]})


@pytest.fixture
def admin(online: OnlineUnderTest) -> redis.Redis:
    """A plain connection to the server."""
    host, port = online.settings["connection_string"].split(":")
    return redis.Redis(host, int(port))


def test_stock_client_reads_every_type_we_write(online: OnlineUnderTest, stock: FeatureStore) -> None:
    assert_stock_reads_ours(online, stock)


def test_we_read_every_type_a_stock_client_writes(online: OnlineUnderTest, stock: FeatureStore) -> None:
    assert_we_read_stock(online, stock)


def test_stored_hash_is_the_stock_one_to_the_byte(
    online: OnlineUnderTest, stock: FeatureStore, admin: redis.Redis
) -> None:
    ours, theirs = new_ids(1), new_ids(1)
    at = NOON + 7 * MICROSECOND
    write(online.store, V1, embedding_rows(V1, ours, value=3, at=at))
    stock.write_to_online_store(V1, embedding_rows(V1, theirs, value=3, at=at, created=at).to_pandas())
    found = [admin.hgetall(entity_keys(PIN_KEY, [pa.array(ids)], b"contract")[0]) for ids in (ours, theirs)]
    assert found[0] == found[1]
    assert len(found[0]) == 4


@pytest.mark.parametrize("year", [1901, 1969, 1970, 2024, 2250])
def test_order_holds_to_the_microsecond_in_every_year(online: OnlineUnderTest, year: int) -> None:
    ids, at = new_ids(1), dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    for value, moment in ((2, at), (1, at - MICROSECOND), (3, at + MICROSECOND), (4, at)):
        write(online.store, V1, embedding_rows(V1, ids, value=value, at=moment))
    assert online.clicks(V1, ids, at + HOUR) == [3]


def test_key_ttl_of_feast_is_kept(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(1)
    write(feature_store(online.folder, {**online.settings, "key_ttl_seconds": 500}), V1, embedding_rows(V1, ids))
    assert 490 <= admin.ttl(entity_keys(PIN_KEY, [pa.array(ids)], b"contract")[0]) <= 500


def test_server_that_forgot_the_script_takes_rows(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(1)
    write(online.store, V1, embedding_rows(V1, ids))
    admin.script_flush()
    write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR))
    assert online.clicks(V1, ids, NOON + HOUR) == [2]


def test_server_out_of_memory_refuses_whole_rows_and_is_repaired_by_writing_again(
    online: OnlineUnderTest, admin: redis.Redis
) -> None:
    ids = new_ids(20).tolist()
    admin.config_set("maxmemory", 1)
    try:
        message = f"feature view {V1} .*refused 20 of 20, first entity key pin_id={ids[0]}: .*OOM|{V1}.*OutOfMemory"
        with pytest.raises(OnlineStoreUnavailableError, match=message):
            write(online.store, V1, embedding_rows(V1, ids))
    finally:
        admin.config_set("maxmemory", 0)
    assert online.clicks(V1, ids) == [None] * 20
    assert write(online.store, V1, embedding_rows(V1, ids)) == 20


def test_read_only_replica_refuses_writes_and_answers_reads(
    online: OnlineUnderTest, tmp_path: Path, admin: redis.Redis
) -> None:
    admin.config_set("repl-diskless-sync-delay", 0)
    ids = new_ids(1)
    write(online.store, V1, embedding_rows(V1, ids, value=4))
    source = online.settings["connection_string"].replace(":", " ")
    with running(tmp_path, "--replicaof", *source.split()) as port:
        replica = feature_store(online.folder, {**online.settings, "connection_string": f"{HOST}:{port}"})
        wait_for_replica(port)
        with pytest.raises(OnlineStoreUnavailableError, match=f"(?i){V1}.*pin_id={ids[0]}.*read ?only"):
            write(replica, V1, embedding_rows(V1, ids))
        assert PackedReader(replica).read_matrix(V1, ids, now=NOON)[0].tolist() == [[4.0] * 4]


@pytest.fixture
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py tries to connect again for ten seconds; here without a pause."""
    monkeypatch.setattr("redis.retry.sleep", lambda _: None)


@pytest.mark.usefixtures("_without_waiting")
def test_server_that_is_down_is_named_with_the_view_and_serves_again_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    settings = {"type": PACKED, "connection_string": f"{HOST}:{port}"}
    with running(tmp_path / "first", port=port):
        online = OnlineUnderTest.applied(tmp_path, settings)
        write(online.store, V1, embedding_rows(V1, [1]))
    with pytest.raises(OnlineStoreUnavailableError, match=f"take every row for feature view {V1} .*ConnectionError"):
        write(online.store, V1, embedding_rows(V1, [1]))
    with pytest.raises(OnlineStoreUnavailableError, match=f"answer for feature view {V1}"):
        online.reader.read_matrix(V1, [1])
    with running(tmp_path / "second", port=port):
        assert online.clicks(V1, [1]) == [None]
        write(online.store, V1, embedding_rows(V1, [1], value=2))
        assert online.clicks(V1, [1]) == [2]


@pytest.mark.usefixtures("_without_waiting")
def test_server_killed_in_the_middle_leaves_whole_rows_and_is_repaired_by_writing_again(tmp_path: Path) -> None:
    ids, port = np.arange(20_000), free_port()
    settings = {"type": PACKED, "connection_string": f"{HOST}:{port}"}
    append = ("--appendonly", "yes", "--appendfsync", "no")
    with running(tmp_path / "server", *append, port=port):
        online = OnlineUnderTest.applied(tmp_path, settings)
        packed, view = online.store._get_provider().online_store, online.store.get_feature_view(V1)

        def kill(_: int) -> None:
            with contextlib.suppress(redis.ConnectionError):
                redis.Redis(HOST, port).shutdown(nosave=True)

        with pytest.raises(OnlineStoreUnavailableError, match=V1):
            packed.write_table(online.store.config, view, embedding_rows(V1, ids), kill)
    with running(tmp_path / "server", *append, port=port):
        rows = online.reader.read([V1], ids, now=NOON)[V1]
        held = rows.status == "present"
        assert 0 < held.sum() < len(ids)
        assert np.isfinite(rows.matrix()[held]).all()
        assert rows.column("clicks").null_count == rows.column("rate").null_count == (~held).sum()
        assert packed.write_table(online.store.config, view, embedding_rows(V1, ids)) == len(ids)
        assert (online.reader.read_matrix(V1, ids, now=NOON)[2] == "present").all()


def test_cluster_keeps_keys_on_all_nodes_in_order(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "nodes") as ports:
        addresses = ",".join(f"{HOST}:{port}" for port in ports)
        settings = {"type": PACKED, "redis_type": "redis_cluster", "connection_string": addresses}
        online = OnlineUnderTest.applied(tmp_path, settings)
        ids = np.arange(300)
        assert write(online.store, V1, embedding_rows(V1, ids, value=2)) == 300
        assert write(online.store, V1, embedding_rows(V1, ids, value=1, at=NOON - HOUR)) == 0
        assert all(redis.Redis(HOST, port).dbsize() > 50 for port in ports)
        assert (online.reader.read_matrix(V1, ids, now=NOON)[0] == 2).all()
        stock = feature_store(tmp_path, {**settings, "type": "redis"})
        answer = stock.get_online_features([f"{V1}:clicks"], {"pin_id": ids.tolist()}).to_dict()
        assert answer["clicks"] == [2] * 300


def test_sentinel_leads_to_its_master(tmp_path: Path) -> None:
    with running(tmp_path / "master") as port:
        monitor = f"sentinel monitor headwater {HOST} {port} 1"
        with running(tmp_path / "sentinel", "--sentinel", monitor) as sentinel:
            kind = {"redis_type": "redis_sentinel", "sentinel_master": "headwater"}
            settings = {"type": PACKED, "connection_string": f"{HOST}:{sentinel}", **kind}
            online = OnlineUnderTest.applied(tmp_path, settings)
            write(online.store, V1, embedding_rows(V1, [1, 2], value=2))
            assert online.clicks(V1, [2, 3]) == [2, None]
            assert redis.Redis(HOST, port).dbsize() == 2
