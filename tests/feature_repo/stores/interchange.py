"""The two directions between a packed store and Feast's own client on the same data."""

from __future__ import annotations

import pyarrow as pa
from feast import FeatureStore
from feast.utils import _convert_arrow_to_proto

from tests.feature_repo.stores.online_contract import V1, OnlineUnderTest
from tests.feature_repo.stores.online_repos import MOMENT, NOON, TYPES, embedding_rows, new_ids, write


def assert_stock_reads_ours(online: OnlineUnderTest, stock: FeatureStore) -> None:
    """A stock `get_online_features` gives every value that we wrote."""
    ids = new_ids(3)
    columns = {name: case.column for name, case in TYPES.items()}
    write(online.store, "every_type", pa.table({"pin_id": ids, **columns, "event_timestamp": _noons(3)}))
    write(online.store, V1, embedding_rows(V1, ids, value=3))
    features = [f"every_type:{name}" for name in TYPES] + [f"{V1}:embedding", f"{V1}:clicks"]
    answer = stock.get_online_features(features, {"pin_id": ids.tolist()}).to_dict()
    assert {name: answer[name] for name in TYPES} == {name: case.read for name, case in TYPES.items()}
    assert answer["embedding"] == [[3.0] * 4] * 3
    assert answer["clicks"] == [3] * 3


def assert_we_read_stock(online: OnlineUnderTest, stock: FeatureStore) -> None:
    """Our `get_online_features` and our reader give every value that a stock client wrote."""
    ids = new_ids(3)
    # Feast's conversion of Arrow does not take maps and structs, which it stores.
    names = [name for name in TYPES if name not in ("string_map", "struct")]
    view = stock.get_feature_view("every_type")
    view.features = [field for field in view.features if field.name in names]
    columns = {name: TYPES[name].column for name in names}
    times = {"event_timestamp": _noons(3), "created_timestamp": _noons(3)}
    # In a column with a null Feast would take integers for floats, so each row is converted by itself.
    for row in range(3):
        table = pa.table({"pin_id": ids, **columns, **times}).slice(row, 1)
        data = _convert_arrow_to_proto(table, view, {"pin_id": view.entity_columns[0].dtype.to_value_type()})
        stock._get_provider().online_store.online_write_batch(stock.config, view, data, None)
    asked = [f"every_type:{name}" for name in names]
    ours, theirs = (
        client.get_online_features(asked, {"pin_id": ids.tolist()}).to_dict() for client in (online.store, stock)
    )
    assert ours == theirs
    assert [ours[name][0] for name in names] == [TYPES[name].read[0] for name in names]
    stock.write_to_online_store(V1, embedding_rows(V1, ids, value=5, created=NOON).to_pandas())
    vectors, moments, status = online.reader.read_matrix(V1, ids, now=NOON)
    assert (vectors == 5).all()
    assert moments.tolist() == [NOON.replace(tzinfo=None)] * 3
    assert status.tolist() == ["present"] * 3


def _noons(count: int) -> pa.Array:
    return pa.array([NOON] * count, MOMENT)
