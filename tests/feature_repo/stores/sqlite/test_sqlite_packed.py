"""The SQLite store: the contract, Feast's own client on the same file, and what can go wrong with a file."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore, Field, ValueType
from feast.types import String

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.packed.entity_keys import JoinKey, entity_keys
from feature_repo.stores.packed.reader import PackedReader
from tests.feature_repo.stores.interchange import assert_stock_reads_ours, assert_we_read_stock
from tests.feature_repo.stores.online_contract import HOUR, MICROSECOND, V1, OnlineStoreContract, OnlineUnderTest
from tests.feature_repo.stores.online_repos import NOON, TTL, embedding_rows, feature_store, new_ids, write

PACKED = "feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore"
PIN_KEY = [JoinKey(name="pin_id", kind=ValueType.INT64)]


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> OnlineUnderTest:
    folder: Path = tmp_path_factory.mktemp("sqlite")
    return OnlineUnderTest.applied(folder, {"type": PACKED, "path": str(folder / "online.db")})


class TestPackedSqlite(OnlineStoreContract):
    """The contract on one file."""


@pytest.fixture
def stock(online: OnlineUnderTest) -> FeatureStore:
    """Feast's own client of the same file."""
    return feature_store(online.folder, {"type": "sqlite", "path": online.settings["path"]})


def test_stock_client_reads_every_type_we_write(online: OnlineUnderTest, stock: FeatureStore) -> None:
    assert_stock_reads_ours(online, stock)


def test_we_read_every_type_a_stock_client_writes(online: OnlineUnderTest, stock: FeatureStore) -> None:
    assert_we_read_stock(online, stock)


def test_stored_cells_are_the_stock_ones_to_the_byte(online: OnlineUnderTest, stock: FeatureStore) -> None:
    ours, theirs = new_ids(1), new_ids(1)
    write(online.store, V1, embedding_rows(V1, ours, value=3, created=NOON))
    stock.write_to_online_store(V1, embedding_rows(V1, theirs, value=3, created=NOON).to_pandas())
    query = f"SELECT feature_name, value, value_text, event_ts, created_ts FROM contract_{V1} WHERE entity_key = ?"
    with sqlite3.connect(online.settings["path"]) as connection:
        found = [sorted(connection.execute(query, entity_keys(PIN_KEY, [pa.array(ids)]))) for ids in (ours, theirs)]
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_microseconds_count_within_a_second_that_feast_cannot_tell_apart(online: OnlineUnderTest) -> None:
    ids = new_ids(1)
    for micros in (5, 4):
        write(online.store, V1, embedding_rows(V1, ids, value=micros, at=NOON + micros * MICROSECOND))
    assert online.clicks(V1, ids, NOON + HOUR) == [5]
    assert online.reader.read_matrix(V1, ids, now=NOON + 5 * MICROSECOND)[2].tolist() == ["present"]


def test_row_that_a_stock_client_replaced_has_the_time_it_wrote(online: OnlineUnderTest, stock: FeatureStore) -> None:
    ids = new_ids(1)
    write(online.store, V1, embedding_rows(V1, ids, at=NOON + 7 * MICROSECOND))
    later = NOON + HOUR
    stock.write_to_online_store(V1, embedding_rows(V1, ids, value=2, at=later, created=later).to_pandas())
    _, moments, _ = online.reader.read_matrix(V1, ids, now=later)
    assert moments.tolist() == [later.replace(tzinfo=None)]
    assert write(online.store, V1, embedding_rows(V1, ids, value=3, at=later - MICROSECOND)) == 0


def test_older_row_does_not_bring_a_feature_that_the_view_gained_later(online: OnlineUnderTest) -> None:
    ids = new_ids(1)
    write(online.store, V1, embedding_rows(V1, ids))
    with sqlite3.connect(online.settings["path"]) as connection:
        key = entity_keys(PIN_KEY, [pa.array(ids)])
        connection.execute(f"DELETE FROM contract_{V1} WHERE entity_key = ? AND feature_name = 'rate'", key)
    write(online.store, V1, embedding_rows(V1, ids, at=NOON - HOUR))
    assert online.reader.read([V1], ids, now=NOON)[V1].column("rate").to_pylist() == [None]


def test_interrupted_write_leaves_nothing_and_can_be_repeated(online: OnlineUnderTest) -> None:
    ids = new_ids(25_000)
    packed, view = online.store._get_provider().online_store, online.store.get_feature_view(V1)
    rows = embedding_rows(V1, ids)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed.write_table(online.store.config, view, rows, stop)
    assert set(online.reader.read_matrix(V1, ids[:10_000], now=NOON)[2]) == {"missing"}
    assert packed.write_table(online.store.config, view, rows) == len(ids)


def test_locked_file_is_named_with_the_view(online: OnlineUnderTest) -> None:
    hurried = feature_store(online.folder, {**online.settings, "busy_timeout_ms": 30})
    with closing(sqlite3.connect(online.settings["path"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OnlineStoreUnavailableError, match=rf"online\.db must serve feature view {V1} .*locked"):
            write(hurried, V1, embedding_rows(V1, new_ids(1)))


def _write_on_a_full_disk(online: OnlineUnderTest, ids: list[int], answer: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    try:
        write(online.other_client(), V1, embedding_rows(V1, ids))
    except OnlineStoreUnavailableError as error:
        answer.put(str(error))


def test_full_disk_is_named_and_leaves_nothing(online: OnlineUnderTest) -> None:
    ids = new_ids(20_000).tolist()
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    writer = context.Process(target=_write_on_a_full_disk, args=(online, ids, answer))
    writer.start()
    assert V1 in answer.get(timeout=60)
    writer.join(60)
    assert set(online.reader.read_matrix(V1, ids, now=NOON)[2]) == {"missing"}
    assert write(online.store, V1, embedding_rows(V1, ids)) == len(ids)


def test_view_without_a_table_asks_for_apply(tmp_path: Path, online: OnlineUnderTest) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "empty.db")}
    empty = feature_store(online.folder, settings)
    with pytest.raises(OnlineStoreUnavailableError, match=f"{V1} .*run `feast apply`"):
        write(empty, V1, embedding_rows(V1, [1]))


def test_clock_stands_at_the_end_of_the_last_materialization(tmp_path: Path) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "online.db"), "clock": "materialized"}
    replay = OnlineUnderTest.applied(tmp_path, settings)
    ids = new_ids(2)
    write(replay.store, V1, embedding_rows(V1, ids, at=[NOON, NOON - TTL]))
    asked = {"features": [f"{V1}:clicks"], "entity_rows": {"pin_id": ids.tolist()}}
    assert replay.store.get_online_features(**asked).to_dict()["clicks"] == [None, None]
    view = replay.store.get_feature_view(V1)
    replay.store.registry.apply_materialization(view, "contract", NOON - HOUR, NOON + HOUR)
    fresh = replay.other_client()
    assert fresh.get_online_features(**asked).to_dict()["clicks"] == [1, None]
    assert PackedReader(fresh).read_matrix(V1, ids)[2].tolist() == ["present", "outside_max_age"]


@pytest.mark.parametrize("switch", [{"vector_enabled": True}, {}])
def test_vector_search_is_refused_and_milvus_named(online: OnlineUnderTest, switch: dict[str, bool]) -> None:
    client = feature_store(online.folder, {**online.settings, **switch})
    with pytest.raises(ValueError, match=rf"{V1} must be in a store with vector search .*PackedMilvusOnlineStore"):
        client.retrieve_online_documents_v2(features=[f"{V1}:embedding"], query=[1.0] * 4, top_k=1)


def test_text_search_finds_rows_and_lets_writers_in(tmp_path: Path) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "online.db"), "text_search_enabled": True}
    under_test = OnlineUnderTest.applied(tmp_path, settings)
    packed, view = under_test.store._get_provider().online_store, under_test.store.get_feature_view(V1)
    # Feast asks for a vector field even where it searches by text.
    view.features = [*view.features, Field(name="title", dtype=String)]
    table = embedding_rows(V1, [1, 2]).append_column("title", pa.array(["red shoes", "green hat"]))
    packed.write_table(under_test.store.config, view, table)
    for _ in range(2):
        found = packed.retrieve_online_documents_v2(
            under_test.store.config, view, ["title"], None, 5, query_string="shoes"
        )
        assert [row["clicks"].int64_val for _, _, row in found] == [1]
    hurried = feature_store(tmp_path, {**settings, "busy_timeout_ms": 30})
    assert write(hurried, V1, embedding_rows(V1, [3])) == 1


def test_file_of_a_search_client_is_written_with_its_vectors(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"type": PACKED, "path": str(tmp_path / "online.db"), "vector_enabled": True}
    under_test = OnlineUnderTest.applied(tmp_path, settings)
    write(under_test.store, V1, embedding_rows(V1, [1], value=3))
    with closing(sqlite3.connect(settings["path"])) as connection:
        query = f"SELECT vector_value FROM contract_{V1} WHERE feature_name = 'embedding'"
        assert connection.execute(query).fetchone() == (struct.pack("<4f", 3, 3, 3, 3),)


def test_read_only_file_is_read_and_named_to_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "online.db")}
    under_test = OnlineUnderTest.applied(tmp_path, settings)
    write(under_test.store, V1, embedding_rows(V1, [1]))
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def frozen(path: str, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        # Permissions would not do: a test may run as root, who may write everywhere.
        return connect(f"file:{path}?mode=ro", *args, **kwargs, uri=True)

    monkeypatch.setattr(sqlite3, "connect", frozen)
    client = under_test.other_client()
    assert PackedReader(client).read([V1], [1], now=NOON)[V1].column("clicks").to_pylist() == [1]
    with pytest.raises(OnlineStoreUnavailableError, match=rf"online\.db must serve feature view {V1} .*writable"):
        write(client, V1, embedding_rows(V1, [2]))


def test_write_that_does_not_fit_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "online.db")}
    under_test = OnlineUnderTest.applied(tmp_path, settings)
    write(under_test.store, V1, embedding_rows(V1, [1], value=1))
    rows = embedding_rows(V1, range(5000), value=2, at=NOON + HOUR)
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 30")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(OnlineStoreUnavailableError, match=rf"online\.db must serve feature view {V1} .*full"):
            write(under_test.store, V1, rows)
    assert under_test.clicks(V1, [1, 2], NOON + HOUR) == [1, None]
    assert write(under_test.store, V1, rows) == 5000


def _die_in_the_middle(folder: Path, settings: dict[str, Any], ids: list[int]) -> None:
    store = feature_store(folder, settings)
    packed, view = store._get_provider().online_store, store.get_feature_view(V1)
    packed.write_table(store.config, view, embedding_rows(V1, ids, value=2, at=NOON + HOUR), lambda _: os._exit(9))


@pytest.mark.parametrize("is_read_before", [False, True])
def test_killed_write_leaves_what_was_there_and_can_be_repeated(tmp_path: Path, is_read_before: bool) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "online.db")}
    under_test = OnlineUnderTest.applied(tmp_path, settings)
    ids = list(range(25_000))
    write(under_test.store, V1, embedding_rows(V1, ids[:1000], value=1))
    if is_read_before:
        assert under_test.clicks(V1, [0]) == [1]
    writer = multiprocessing.get_context("fork").Process(target=_die_in_the_middle, args=(tmp_path, settings, ids))
    writer.start()
    writer.join(60)
    assert writer.exitcode == 9
    assert set(under_test.clicks(V1, ids[:2000], NOON + HOUR)) == {1, None}
    with closing(sqlite3.connect(settings["path"])) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert write(under_test.store, V1, embedding_rows(V1, ids, value=2, at=NOON + HOUR)) == len(ids)
    assert set(under_test.clicks(V1, ids, NOON + HOUR)) == {2}


def test_file_goes_over_to_wal_when_it_is_read(tmp_path: Path) -> None:
    settings = {"type": PACKED, "path": str(tmp_path / "online.db")}
    under_test = OnlineUnderTest.applied(tmp_path, settings)
    write(under_test.store, V1, embedding_rows(V1, [1]))
    with closing(sqlite3.connect(settings["path"])) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA page_size").fetchone() == (16_384,)
    assert under_test.clicks(V1, [1]) == [1]
    with closing(sqlite3.connect(settings["path"])) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_rows_are_kept_in_order_when_keys_are_beyond_all_that_are_held(online: OnlineUnderTest) -> None:
    # Keys are compared as bytes, little-endian: 256 goes before 1.
    first, second = new_ids(1), new_ids(300)
    write(online.store, V1, embedding_rows(V1, second[::2], value=5, at=NOON + HOUR))
    assert write(online.store, V1, embedding_rows(V1, [*first.tolist(), *second.tolist()], value=4)) == 151
    assert online.clicks(V1, second, NOON + HOUR) == [5, 4] * 150


def test_view_that_feast_deletes_takes_its_table_along(online: OnlineUnderTest) -> None:
    view = online.store.get_feature_view("pin_embedding_ctr_v1")
    assert tables_of(online, view.name) == 1
    # As `feast delete` does: the view is named among those to keep and among those that go.
    online.store._get_provider().update_infra(online.store.project, [view], [view], [], [], partial=True)
    assert tables_of(online, view.name) == 0


def tables_of(online: OnlineUnderTest, view: str) -> int:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name LIKE ?"
    with closing(sqlite3.connect(online.settings["path"])) as connection:
        count: int = connection.execute(query, [f"%{view}"]).fetchone()[0]
    return count
