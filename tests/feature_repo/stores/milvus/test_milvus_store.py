"""Collections, limits and failures of the Milvus store, and the profile on a run's repo."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pymilvus", reason="needs the extra `milvus`")
pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")

from pymilvus import DataType

from feature_repo.layout import apply, create_repo
from feature_repo.layout import open_store as open_repo
from feature_repo.stores.online.errors import OnlineStoreUnavailableError, PackedWriteError
from tests.feature_repo.repos import MANIFEST, hours, write_all
from tests.feature_repo.stores.milvus.test_milvus_search import DIM, PIN, online, open_store, search, table, view, write


def ones(dim: int, count: int = 2) -> pa.Table:
    return table(np.ones((count, dim), np.float32))


def test_versions_of_several_widths_lie_side_by_side(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply([PIN, view("pins_v1", 4), view("pins_v2", 9)])
    write(store, "pins_v1", ones(4))
    write(store, "pins_v2", ones(9, 3))
    found = [search(store, name, [1.0] * dim)["embedding"] for name, dim in (("pins_v1", 4), ("pins_v2", 9))]
    online(store).disconnect()
    assert [(len(vectors), len(vectors[0])) for vectors in found] == [(2, 4), (3, 9)]


def test_fields_keep_their_types(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply([PIN, view("pins", 4)])
    described = online(store).client.describe_collection("search_pins")
    online(store).disconnect()
    types = {field["name"]: field["type"] for field in described["fields"]}
    assert types == {
        "pin_id_pk": DataType.VARCHAR,
        "event_ts": DataType.INT64,
        "created_ts": DataType.INT64,
        "pin_id": DataType.INT64,
        "embedding": DataType.FLOAT_VECTOR,
        "clicks": DataType.INT64,
        "topic": DataType.VARCHAR,
        "listed_at": DataType.INT64,
    }


def test_rows_are_there_after_the_file_was_closed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply([PIN, view("pins", 4)])
    write(store, "pins", ones(4))
    online(store).disconnect()
    assert search(store, "pins", [1.0] * 4)["pin_id"] == [0, 1]
    assert write(store, "pins", table(np.zeros((1, 4), np.float32), datetime.now(UTC) - timedelta(hours=9))) == 0
    online(store).disconnect()


def test_view_of_another_width_under_the_same_name_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply([PIN, view("pins", 4)])
    online(store).disconnect()
    again = open_store(tmp_path)
    expected = r"collection search_pins .*has embedding as FLOAT_VECTOR\(4\) instead of FLOAT_VECTOR\(8\)"
    with pytest.raises(ValueError, match=expected):
        again.apply([PIN, view("pins", 8)])
    online(again).disconnect()


def test_deleted_view_takes_its_collection_along(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    pins = view("pins", 4)
    store.apply([PIN, pins, view("others", 4)])
    store.apply([], objects_to_delete=[pins], partial=False)
    left = online(store).client.list_collections()
    online(store).disconnect()
    assert left == ["search_others"]


def test_collection_that_a_kill_left_without_an_index_gets_one(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply([PIN, view("pins", 4)])
    client = online(store).client
    client.release_collection("search_pins")
    for name in client.list_indexes("search_pins"):
        client.drop_index("search_pins", name)
    online(store).disconnect()
    again = open_store(tmp_path)
    assert write(again, "pins", ones(4)) == 2
    found = search(again, "pins", [1.0] * 4)["pin_id"]
    indexes = online(again).client.list_indexes("search_pins")
    online(again).disconnect()
    assert (sorted(found), len(indexes)) == ([0, 1], 1)


def test_deleted_view_leaves_its_namesakes_with_a_version(tmp_path: Path) -> None:
    """Feast's own store takes the view `pins_v2` for a snapshot of the view `pins`."""
    store = open_store(tmp_path)
    pins = view("pins", 4)
    store.apply([PIN, pins, view("pins_v2", 4)])
    write(store, "pins_v2", ones(4))
    store.apply([pins], objects_to_delete=[pins], partial=False)
    found = search(store, "pins_v2", [1.0] * 4)["pin_id"]
    left = online(store).client.list_collections()
    online(store).disconnect()
    assert (found, left) == ([0, 1], ["search_pins_v2"])


def test_feasts_snapshots_of_a_view_are_collections_of_their_own_and_go_with_it(tmp_path: Path) -> None:
    store = open_store(tmp_path, versioned=True)
    pins = view("pins", 4)
    store.apply([PIN, pins])
    write(store, "pins", ones(4))
    changed = view("pins", 4)
    changed.features = changed.features[:2]
    store.apply([changed])
    names = sorted(online(store).client.list_collections())
    store.apply([], objects_to_delete=[pins], partial=False)
    left = online(store).client.list_collections()
    online(store).disconnect()
    assert (names, left) == (["search_pins", "search_pins_v1"], [])


def test_protobuf_rows_are_checked_too(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply([PIN, view("pins", 4)])
    frame = ones(4).to_pandas().assign(created_timestamp=datetime.now(UTC))
    frame["embedding"] = [[1.0] * 4, [1.0, float("nan"), 1.0, 1.0]]
    with pytest.raises(PackedWriteError, match="pins at entity key pin_id=1: elements of embedding must be finite"):
        store.write_to_online_store("pins", frame)
    frame["embedding"] = [[1.0] * 4, [2.0] * 4]
    store.write_to_online_store("pins", frame)
    found = search(store, "pins", [1.0] * 4)["pin_id"]
    online(store).disconnect()
    assert sorted(found) == [0, 1]


def test_text_that_milvus_cannot_hold_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, varchar_max_length=200)
    store.apply([PIN, view("pins", 4)])
    rows = ones(4)
    place = rows.schema.get_field_index("topic")
    with pytest.raises(PackedWriteError, match=r"pin_id=1: topic must take at most 200 bytes in Milvus \(got 202\)"):
        write(store, "pins", rows.set_column(place, "topic", pa.array(["short", "é" * 101])))
    assert write(store, "pins", rows.set_column(place, "topic", pa.array(["short", "é" * 100]))) == 2
    online(store).disconnect()


def test_older_rows_are_kept_out_among_newer_ones(tmp_path: Path) -> None:
    """Also where some stored rows are newer than the oldest that is written, so that keys must be compared."""
    store = open_store(tmp_path)
    store.apply([PIN, view("pins", DIM)])
    now = datetime.now(UTC)
    write(store, "pins", table(np.full((2, DIM), 5.0, np.float32), now - timedelta(hours=1)))
    mixed = [
        table(np.full((1, DIM), 1.0, np.float32), now - timedelta(hours=age), first)
        for first, age in ((0, 2), (1, 0), (2, 3))
    ]
    assert write(store, "pins", pa.concat_tables(mixed)) == 2
    answer = store.get_online_features(["pins:embedding"], {"pin_id": [0, 1, 2]}).to_dict()["embedding"]
    online(store).disconnect()
    assert [vector[0] for vector in answer] == [5.0, 1.0, 1.0]


def test_server_that_does_not_answer_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = open_store(tmp_path, path="", uri=uri, token="secret", timeout_s=0.5)
    with pytest.raises(OnlineStoreUnavailableError, match="Milvus must answer") as caught:
        store.apply([PIN, view("pins", 4)])
    assert "secret" not in str(caught.value)


def test_path_must_be_a_milvus_lite_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end with \.db \(got 'online'\)"):
        _ = open_store(tmp_path, path="online").config.online_store


def test_index_that_milvus_lite_has_not_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, index_type="DISKANN")
    with pytest.raises(ValueError, match=r"index_type must be one of \('FLAT', .*\(got 'DISKANN'\)"):
        store.apply([PIN, view("pins", 4)])
    online(store).disconnect()


def test_milvus_profile_makes_the_pins_of_a_run_searchable(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST, profile="milvus")
    apply(tmp_path)
    write_all(tmp_path)
    store = open_repo(tmp_path)
    store.materialize(hours(-24), hours(48))
    references = ["pin_embedding_ctr_v1:embedding", "pin_embedding_ctr_v1:data_cutoff"]
    found = store.retrieve_online_documents_v2(references, top_k=5, query=[11.0, 1.0, 0.0, 1.0]).to_dict()
    topics = store.get_online_features(["pin_attributes:topic"], {"pin_id": [10, 11]})
    users = store.get_online_features(["user_activity:impressions_1d"], {"user_id": [1, 2]})
    online(store).disconnect()
    assert found["pin_id"] == [11, 10]
    assert found["embedding"] == [[11.0, 1.0, 0.0, 1.0], [10.0, 1.0, 0.0, 1.0]]
    assert found["data_cutoff"] == [hours(24)] * 2
    assert topics.to_dict()["topic"] == ["food", None]
    assert users.to_dict()["impressions_1d"] == [101, 102]
    assert isinstance(found["distance"][0], float)
