"""The Redis store on servers in trouble: what is said, what stays whole, and that doing it again repairs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from feast import FeatureStore

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.packed.reader import PackedReader
from tests.feature_repo.stores.engine.engine_repos import (
    END,
    ENGINE,
    START,
    open_repo,
    vector_view,
    vectors,
    write_vectors,
)
from tests.feature_repo.stores.online_contract import V1, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, embedding_rows, feature_store, new_ids, write
from tests.feature_repo.stores.servers import HOST, creates_rows, free_port, running, wait_for_replica

PACKED = "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineUnderTest]:
    folder = tmp_path_factory.mktemp("trouble")
    with running(folder / "server") as port:
        yield OnlineUnderTest.applied(folder, {"type": PACKED, "connection_string": f"{HOST}:{port}"})


@pytest.fixture
def admin(online: OnlineUnderTest) -> redis.Redis:
    """A plain connection to the server."""
    host, port = online.settings["connection_string"].split(":")
    return redis.Redis(host, int(port))


def _client(online: OnlineUnderTest, admin: redis.Redis, *rules: str) -> FeatureStore:
    """A client whose user may do what the rules say."""
    admin.acl_deluser("limited")
    admin.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", *rules)
    address = f"{online.settings['connection_string']},username=limited,password=secret"
    return feature_store(online.folder, {**online.settings, "connection_string": address})


def test_user_that_may_only_read_reads_and_is_told_what_writing_needs(
    online: OnlineUnderTest, admin: redis.Redis
) -> None:
    ids = new_ids(2)
    write(online.store, V1, embedding_rows(V1, ids, value=3))
    reader = _client(online, admin, "+hmget")
    assert (PackedReader(reader).read_matrix(V1, ids, now=NOON)[0] == 3).all()
    address = online.settings["connection_string"]
    needs = r"let its user run HMGET and, to write, SCRIPT LOAD, EVALSHA, HGET, HSET and EXPIRE"
    with pytest.raises(
        OnlineStoreUnavailableError, match=f"Redis {address} must .*{V1}.*NoPermission.*{needs}"
    ) as raised:
        write(reader, V1, embedding_rows(V1, ids, value=4))
    assert "secret" not in str(raised.value)
    assert online.clicks(V1, ids) == [3, 3]


@pytest.mark.parametrize("lacks", ["-script", "-evalsha", "-hset", "-hget"])
def test_user_without_a_permission_writes_nothing_and_is_told(
    online: OnlineUnderTest, admin: redis.Redis, lacks: str
) -> None:
    ids = new_ids(3)
    creating = ["-hsetex"] if creates_rows(admin) else []
    limited = _client(online, admin, "+@all", *creating, lacks)
    admin.script_flush()
    with pytest.raises(OnlineStoreUnavailableError, match=f"{V1}.*let its user run HMGET and, to write, SCRIPT LOAD"):
        write(limited, V1, embedding_rows(V1, ids))
    assert online.clicks(V1, ids) == [None] * 3


def test_user_without_read_permission_is_told(online: OnlineUnderTest, admin: redis.Redis) -> None:
    limited = _client(online, admin, "+@all", "-hmget")
    with pytest.raises(OnlineStoreUnavailableError, match=f"answer for feature view {V1}.*let its user run HMGET"):
        PackedReader(limited).read_matrix(V1, [1])


@pytest.mark.usefixtures("_without_waiting")
def test_wrong_password_is_named_without_it(online: OnlineUnderTest) -> None:
    address = f"{online.settings['connection_string']},username=nobody,password=hidden"
    stranger = feature_store(online.folder, {**online.settings, "connection_string": address})
    with pytest.raises(OnlineStoreUnavailableError, match=f"{V1}.*correct username and password") as raised:
        PackedReader(stranger).read_matrix(V1, [1])
    assert "hidden" not in str(raised.value)


def test_server_out_of_memory_refuses_whole_rows_and_is_repaired_by_writing_again(
    online: OnlineUnderTest, admin: redis.Redis
) -> None:
    ids = new_ids(20).tolist()
    admin.config_set("maxmemory", 1)
    try:
        message = f"feature view {V1} .*OutOfMemory.*raise its maxmemory"
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
        with pytest.raises(OnlineStoreUnavailableError, match=f"{V1}.*pin_id={ids[0]}.*must name the master"):
            write(replica, V1, embedding_rows(V1, ids))
        assert PackedReader(replica).read_matrix(V1, ids, now=NOON)[0].tolist() == [[4.0] * 4]


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


@pytest.mark.usefixtures("_without_waiting")
@pytest.mark.parametrize("keeps", [True, False])
def test_server_restarted_while_a_view_is_materialized_is_repaired_by_running_again(
    tmp_path: Path, keeps: bool
) -> None:
    """With and without the rows that it had taken."""
    port = free_port()
    write_vectors(tmp_path, vectors(300))
    options = ("--appendonly", "yes", "--appendfsync", "no") if keeps else ()
    settings = {"type": PACKED, "connection_string": f"{HOST}:{port}"}
    with running(tmp_path / "server", *options, port=port):
        engine = {"type": ENGINE, "chunk_rows": 10}
        store = open_repo(tmp_path, [vector_view(tmp_path)], engine=engine, online=settings)
        stopping = threading.Thread(target=_shut_down_at, args=(port, 20))
        stopping.start()
        with pytest.raises(OnlineStoreUnavailableError, match="feature view vectors"):
            store.materialize(START, END)
        stopping.join()
    assert store.get_feature_view("vectors").materialization_intervals == []
    with running(tmp_path / "server", *options, port=port):
        store.materialize(START, END)
        rows = PackedReader(store).read(["vectors"], list(range(300)), now=END)["vectors"]
        assert rows.column("count").to_pylist() == [10 * key for key in range(300)]
        assert rows.matrix()[:, 0].tolist() == list(range(300))


def _shut_down_at(port: int, num_keys: int) -> None:
    with redis.Redis(HOST, port) as client:
        while client.dbsize() < num_keys:
            pass
        with contextlib.suppress(redis.ConnectionError):
            client.shutdown(nosave=True)
