"""The Redis store on one server: the contract, and Feast's own client on the same data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis
from feast import FeatureStore, ValueType

from feature_repo.stores.packed.entity_keys import JoinKey, entity_keys
from tests.feature_repo.stores.interchange import assert_stock_reads_ours, assert_we_read_stock
from tests.feature_repo.stores.online_contract import HOUR, MICROSECOND, V1, V2, OnlineStoreContract, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, embedding_rows, feature_store, new_ids, write
from tests.feature_repo.stores.servers import HOST, creates_rows, running

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


@pytest.mark.parametrize("who", [PACKED, "redis"])
def test_key_ttl_of_feast_is_kept_as_a_stock_client_does(
    online: OnlineUnderTest, stock: FeatureStore, admin: redis.Redis, who: str
) -> None:
    """It counts from the last row that was written; one that is too old to be written leaves it as it is."""
    ids, settings = new_ids(1), {**online.settings, "type": who}
    key = entity_keys(PIN_KEY, [pa.array(ids)], b"contract")[0]
    for seconds, at, left in ((500, NOON, 500), (900, NOON - HOUR, 500), (900, NOON + HOUR, 900), (None, NOON, 900)):
        writer = feature_store(online.folder, {**settings, "key_ttl_seconds": seconds})
        writer.write_to_online_store(V1, embedding_rows(V1, ids, at=at, created=at).to_pandas())
        assert left - 20 <= admin.ttl(key) <= left
    write(feature_store(online.folder, {**online.settings, "key_ttl_seconds": 100}), V2, embedding_rows(V2, ids))
    assert 80 <= admin.ttl(key) <= 100
    answer = stock.get_online_features(
        [f"{V1}:clicks", f"{V2}:clicks"], {"pin_id": ids.tolist()}, full_feature_names=True
    )
    assert answer.to_dict() == {"pin_id": ids.tolist(), f"{V1}__clicks": [1], f"{V2}__clicks": [1]}


def test_expired_entity_is_missing(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(2)
    write(feature_store(online.folder, {**online.settings, "key_ttl_seconds": 500}), V1, embedding_rows(V1, ids))
    admin.pexpire(entity_keys(PIN_KEY, [pa.array(ids[:1])], b"contract")[0], 0)
    assert online.reader.read_matrix(V1, ids, now=NOON)[2].tolist() == ["missing", "present"]


def test_read_matrix_asks_for_the_vector_and_its_time_alone(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(1)
    write(online.store, V1, embedding_rows(V1, ids))
    with admin.monitor() as monitor:
        online.reader.read_matrix(V1, ids, now=NOON)
        asked = next(each["command"] for each in monitor.listen() if each["command"].startswith("HMGET"))
    assert asked.endswith(f" _ts:{V1}")
    assert len(asked.split()) == 4


def test_many_keys_are_read_whether_rows_are_alike_or_not(online: OnlineUnderTest) -> None:
    """Rows of one shape take another path than those with missing ones, or of several times, among them."""
    ids = new_ids(3000)
    write(online.store, V1, embedding_rows(V1, ids[:2500], value=2, at=[NOON + n * MICROSECOND for n in range(2500)]))
    rows = online.reader.read([V1], ids, now=NOON + HOUR)[V1]
    assert (rows.status == "present").tolist() == [True] * 2500 + [False] * 500
    for asked in (ids[:1000], ids[2000:]):
        vectors, moments, status = online.reader.read_matrix(V1, asked, now=NOON + HOUR)
        held = np.isin(asked, ids[:2500])
        assert (vectors[held] == 2).all()
        assert np.isnan(vectors[~held]).all()
        assert (status == "present").tolist() == held.tolist()
        assert moments[0] == np.datetime64(NOON.replace(tzinfo=None), "us") + int(asked[0] - ids[0])


@pytest.mark.parametrize("count", [1, 20])
def test_vectors_that_were_read_belong_to_the_caller(online: OnlineUnderTest, count: int) -> None:
    ids = new_ids(count)
    write(online.store, V1, embedding_rows(V1, ids, value=2))
    first = online.reader.read_matrix(V1, ids, now=NOON)[0]
    first += 1
    assert (online.reader.read_matrix(V1, ids, now=NOON)[0] == 2).all()
    assert (first == 3).all()


def test_server_that_forgot_the_script_takes_rows(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(1)
    write(online.store, V1, embedding_rows(V1, ids))
    admin.script_flush()
    write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR))
    assert online.clicks(V1, ids, NOON + HOUR) == [2]


def _commands(admin: redis.Redis, name: str) -> int:
    """Calls of a command that the server carried out."""
    stats: dict[str, dict[str, int]] = admin.info("commandstats")
    return stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]


@pytest.fixture
def _creating(admin: redis.Redis) -> None:
    if not creates_rows(admin):
        pytest.skip("this server has no HSETEX")


@pytest.mark.usefixtures("_creating")
def test_new_rows_are_created_without_the_script_and_others_compared(
    online: OnlineUnderTest, admin: redis.Redis
) -> None:
    ids = new_ids(5000)
    write(online.store, V1, embedding_rows(V1, ids[:100], value=9, at=NOON + HOUR))
    admin.config_resetstat()
    assert write(online.store, V1, embedding_rows(V1, ids, value=2)) == 4900
    assert [_commands(admin, name) for name in ("hsetex", "evalsha")] == [5000, 100]
    assert online.clicks(V1, ids, NOON + HOUR) == [9] * 100 + [2] * 4900


@pytest.mark.usefixtures("_creating")
def test_rows_that_are_mostly_held_are_sent_once_after_the_first_chunks(
    online: OnlineUnderTest, admin: redis.Redis
) -> None:
    ids = new_ids(10_000)
    write(online.store, V1, embedding_rows(V1, ids, value=1))
    admin.config_resetstat()
    assert write(online.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR)) == len(ids)
    # The second chunk's commands were perhaps made before the first one's replies came.
    assert 2000 <= _commands(admin, "hsetex") <= 4000
    assert _commands(admin, "evalsha") == len(ids)
    assert set(online.clicks(V1, ids, NOON + HOUR)) == {2}


def test_row_with_a_part_of_its_fields_is_written_whole(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(2)
    write(online.store, V1, embedding_rows(V1, ids, value=1))
    first, second = entity_keys(PIN_KEY, [pa.array(ids)], b"contract")
    admin.hdel(first, f"_ts:{V1}")
    admin.hdel(second, *[name for name in admin.hkeys(second) if not name.startswith(b"_ts:")])
    assert write(online.store, V1, embedding_rows(V1, ids, value=2)) == 2
    assert online.clicks(V1, ids) == [2, 2]


def test_rows_are_written_by_a_user_who_may_only_run_the_script(online: OnlineUnderTest, admin: redis.Redis) -> None:
    ids = new_ids(5000)
    rules = ("+script|load", "+evalsha", "+hget", "+hset", "+hmget")
    admin.execute_command("ACL", "SETUSER", "older", "reset", "on", ">secret", "~*", *rules)
    address = f"{online.settings['connection_string']},username=older,password=secret"
    older = feature_store(online.folder, {**online.settings, "connection_string": address})
    admin.config_resetstat()
    assert write(older, V1, embedding_rows(V1, ids, value=3)) == len(ids)
    assert [_commands(admin, name) for name in ("hsetex", "evalsha")] == [0, len(ids)]
    assert set(online.clicks(V1, ids)) == {3}


@pytest.mark.usefixtures("_creating")
def test_rows_are_written_to_a_server_that_cannot_create_them(tmp_path: Path) -> None:
    with running(tmp_path / "server", "--rename-command", "HSETEX", "") as port:
        older = OnlineUnderTest.applied(tmp_path, {"type": PACKED, "connection_string": f"{HOST}:{port}"})
        ids = new_ids(5000)
        assert write(older.store, V1, embedding_rows(V1, ids, value=3)) == len(ids)
        assert set(older.clicks(V1, ids)) == {3}
