"""Packed bytes against Feast's own serialisation: values, entity keys, timestamps."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast import ValueType
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.redis import Timestamp
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.type_map import python_values_to_proto_values
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.stores.packed.cells import NO_CELL, JoinedColumn
from feature_repo.stores.packed.decode import decode_column, decode_matrix
from feature_repo.stores.packed.decode_few import FEW_ROWS
from feature_repo.stores.packed.decode_together import ColumnType, decode_columns
from feature_repo.stores.packed.encode import ARROW_TYPES, encode
from feature_repo.stores.packed.entity_keys import JoinKey, entity_keys, key_text
from feature_repo.stores.packed.times import NO_TIME, decode_times, encode_times, to_datetime, to_micros

INT32, INT64 = (st.integers(-(2**bits), 2**bits - 1) for bits in (31, 63))
FLOAT32 = st.floats(width=32, allow_nan=False)
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))
SECONDS = MOMENTS.map(lambda moment: moment.replace(microsecond=0))
SCALARS: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.INT32: INT32,
    ValueType.INT64: INT64,
    ValueType.FLOAT: FLOAT32,
    ValueType.DOUBLE: st.floats(allow_nan=False),
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: st.text(max_size=200),
    ValueType.BYTES: st.binary(max_size=200),
    ValueType.UNIX_TIMESTAMP: SECONDS,
}
LISTS = {ValueType[f"{kind.name}_LIST"]: st.lists(values, max_size=40) for kind, values in SCALARS.items()}
KINDS = SCALARS | LISTS


def columns(kind: ValueType) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | KINDS[kind], min_size=1, max_size=12)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(data=st.data())
def test_encoding_is_that_of_feast_and_decoding_its_inverse(kind: ValueType, data: st.DataObject) -> None:
    values = data.draw(columns(kind))
    column = pa.array(values, ARROW_TYPES[kind])
    encoded = encode(column, kind)
    field = f"{kind.name.lower()}_val"
    for value, message in zip(values, encoded, strict=True):
        # One by one: among other values Feast takes some empty ones for nulls.
        assert message == _by_hand(field, value).SerializeToString()
    decoded = decode_column(encoded, kind, ARROW_TYPES[kind], np.ones(len(values), np.bool_))
    assert decoded.to_pylist() == column.to_pylist()


def _by_hand(field: str, value: Any) -> Value:
    message = Value()
    if value is None:
        return message
    if isinstance(value, list):
        items = [int(item.timestamp()) if isinstance(item, dt.datetime) else item for item in value]
        getattr(message, field).SetInParent()
        getattr(message, field).val.extend(items)
        return message
    setattr(message, field, int(value.timestamp()) if isinstance(value, dt.datetime) else value)
    return message


@given(data=st.data())
def test_columns_decoded_together_are_those_decoded_one_by_one(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=6))
    kinds += data.draw(st.lists(st.sampled_from([ValueType.DOUBLE, ValueType.INT64]), max_size=6))
    num_rows = data.draw(st.integers(0, 2 * FEW_ROWS))
    rows = [data.draw(st.lists(st.none() | KINDS[kind], min_size=num_rows, max_size=num_rows)) for kind in kinds]
    encoded = [encode(pa.array(values, ARROW_TYPES[kind]), kind) for kind, values in zip(kinds, rows, strict=True)]
    absent = data.draw(st.lists(st.booleans(), min_size=num_rows, max_size=num_rows))
    stored = [[None if gone else cell for gone, cell in zip(absent, cells, strict=True)] for cells in encoded]
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=num_rows, max_size=num_rows)), np.bool_)
    types = [ColumnType(kind=kind, arrow=ARROW_TYPES[kind]) for kind in kinds]
    expected = [decode_column(cells, each.kind, each.arrow, wanted) for cells, each in zip(stored, types, strict=True)]
    for columns in (stored, _in_one_string(stored)):
        found = decode_columns(columns, types, wanted)
        assert [each.type for each in found] == [each.type for each in expected]
        assert [each.to_pylist() for each in found] == [each.to_pylist() for each in expected]


def _in_one_string(columns: list[list[bytes | None]]) -> list[JoinedColumn]:
    joined, found = b"".join(cell or b"" for cells in columns for cell in cells), []
    start = 0
    for cells in columns:
        lengths = np.array([NO_CELL if cell is None else len(cell) for cell in cells], np.int64)
        taken = np.maximum(lengths, 0)
        found.append(JoinedColumn(joined, start + np.cumsum(taken) - taken, lengths))
        start += int(taken.sum())
    assert [list(each) for each in found] == columns
    return found


def test_slices_of_columns_are_encoded_like_the_whole() -> None:
    column = pa.array([[1.0], None, [2.0, 3.0], []], pa.list_(pa.float32()))
    whole = encode(column, ValueType.FLOAT_LIST)
    assert [encode(column.slice(row, 1), ValueType.FLOAT_LIST)[0] for row in range(4)] == whole


def test_nan_scalars_are_nulls_as_in_feast() -> None:
    assert encode(pa.array([float("nan"), 1.0]), ValueType.DOUBLE)[0] == b""
    assert python_values_to_proto_values([float("nan"), 1.0], ValueType.DOUBLE)[0].SerializeToString() == b""


@given(st.integers(1, 300), st.integers(1, 4))
def test_matrix_is_read_at_every_width(dim: int, num_rows: int) -> None:
    vectors = np.arange(num_rows * dim, dtype=np.float32).reshape(num_rows, dim)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim).cast(pa.list_(pa.float32()))
    stored = [*encode(column, ValueType.FLOAT_LIST), None, b""]
    found = decode_matrix(stored, ValueType.FLOAT_LIST, np.array([True] * num_rows + [True, True]))
    assert np.array_equal(found[:num_rows], vectors)
    assert np.isnan(found[num_rows:]).all()


def test_values_in_an_unusual_layout_are_read_through_protobuf() -> None:
    # A writer may repeat a field: protobuf takes the last value, and joins lists.
    twice = Value(int64_val=1).SerializeToString() + Value(int64_val=5).SerializeToString()
    found = decode_column([twice], ValueType.INT64, pa.int64(), np.array([True]))
    assert found.to_pylist() == [5]
    halves = [Value(float_list_val=FloatList(val=[part])).SerializeToString() for part in (1.0, 2.0)]
    assert decode_matrix([b"".join(halves)], ValueType.FLOAT_LIST, np.array([True])).tolist() == [[1.0, 2.0]]


def test_matrix_of_several_widths_is_refused() -> None:
    stored = encode(pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())), ValueType.FLOAT_LIST)
    with pytest.raises(ValueError, match=r"one width \(got widths \[1, 2\]\)"):
        decode_matrix(stored, ValueType.FLOAT_LIST, np.array([True, True]))


KEYS = {
    ValueType.INT64: (INT64, pa.int64(), "int64_val"),
    ValueType.INT32: (INT32, pa.int32(), "int32_val"),
    ValueType.STRING: (st.text(max_size=20), pa.string(), "string_val"),
    ValueType.BYTES: (st.binary(max_size=20), pa.binary(), "bytes_val"),
}


@given(st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=3), st.data())
def test_entity_keys_are_those_of_feast(kinds: list[ValueType], data: st.DataObject) -> None:
    names = data.draw(st.permutations(["user_id", "pin_id", "surface"]))[: len(kinds)]
    rows = [tuple(data.draw(KEYS[kind][0]) for kind in kinds) for _ in range(2)]
    expected = []
    for row in rows:
        values = [Value(**{KEYS[kind][2]: value}) for kind, value in zip(kinds, row, strict=True)]
        expected.append(serialize_entity_key(EntityKey(join_keys=names, entity_values=values), 3) + b"project")
    join_keys = [JoinKey(name=name, kind=kind) for name, kind in zip(names, kinds, strict=True)]
    arrays = [pa.array([row[place] for row in rows], KEYS[kind][1]) for place, kind in enumerate(kinds)]
    assert entity_keys(join_keys, arrays, b"project") == expected
    by_name = dict(zip(names, rows[0], strict=True))
    assert key_text(expected[0]) == ", ".join(f"{name}={by_name[name]!r}" for name in sorted(names))


@given(st.lists(MOMENTS, min_size=1, max_size=5))
def test_times_are_the_messages_that_protobuf_writes(moments: list[dt.datetime]) -> None:
    expected = []
    for moment in moments:
        message = Timestamp()
        message.FromDatetime(moment)
        expected.append(message.SerializeToString())
    micros = np.array([to_micros(moment) for moment in moments])
    assert encode_times(micros) == expected
    assert decode_times([*expected, None]).tolist() == [*micros.tolist(), NO_TIME]
    assert [to_datetime(moment) for moment in micros.tolist()] == moments
