"""Rows of a feature view to and from Milvus, whole columns at a time.

Dims: N rows, D width of a vector.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, RepoConfig, ValueType
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.milvus_online_store.milvus import PLACEHOLDER_VECTOR_DIM, PLACEHOLDER_VECTOR_FIELD
from feast.protos.feast.types.Value_pb2 import Value
from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from feature_repo.stores.milvus.schema import CREATED_FIELD, EVENT_FIELD, Column, primary_key
from feature_repo.stores.online.errors import PackedWriteError
from feature_repo.stores.online.values import column_array
from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.encode import ARROW_TYPES, encode
from feature_repo.stores.packed.entity_keys import entity_keys, key_text
from feature_repo.stores.packed.rows import KEY_VERSION, batch_chunks, newest_rows
from feature_repo.stores.packed.times import NO_TIME
from feature_repo.stores.packed.varints import varint

REQUEST_BYTES = 8 << 20
"""About the size of one request; Milvus servers refuse some eight times as much."""
_REQUEST_ROWS = 10_000

Integers = npt.NDArray[np.int64]
Values: TypeAlias = pa.Array | list[bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class MilvusRows:
    """N rows, one per entity key."""

    keys: list[str]
    """Entity keys as Feast serialises them, hexadecimal."""
    event_micros: Integers
    created_micros: Integers
    columns: dict[str, Values]
    """Arrow arrays, or serialised `Value` messages where the collection has no type for them."""

    def take(self, rows: Integers) -> MilvusRows:
        """Some of the rows."""
        places = rows.tolist()
        picked = {
            name: [values[place] for place in places] if isinstance(values, list) else values.take(pa.array(rows))
            for name, values in self.columns.items()
        }
        return MilvusRows(
            keys=[self.keys[place] for place in places],
            event_micros=self.event_micros[rows],
            created_micros=self.created_micros[rows],
            columns=picked,
        )


def table_rows(view: FeatureView, table: pa.Table, columns: Sequence[Column]) -> MilvusRows:
    """Rows of a table that are to be written, the newest of each key.

    Raises:
        PackedWriteError: Something in the table cannot be stored.
    """
    checked = checked_table(view, table)
    keys = entity_keys(checked.join_keys, checked.key_columns)
    stored: dict[str, Values] = dict(zip((key.name for key in checked.join_keys), checked.key_columns, strict=True))
    stored |= dict(zip(checked.names, checked.columns, strict=True))
    rows = MilvusRows(
        keys=[key.hex() for key in keys],
        event_micros=checked.event_micros,
        created_micros=checked.created_micros,
        columns={column.name: _storable(column, stored[column.name]) for column in columns},
    )
    kept = newest_rows(keys, checked.event_micros, checked.created_micros)
    return rows if len(kept) == len(keys) else rows.take(kept)


def batch_rows(view: FeatureView, data: Sequence[Any], config: RepoConfig, columns: Sequence[Column]) -> MilvusRows:
    """Rows of Feast's `online_write_batch`, at least one; a feature that a row does not name is null."""
    names = [field.name for field in view.features]
    empty = Value()
    full = [(key, {name: values.get(name, empty) for name in names}, *times) for key, values, *times in data]
    (chunk,) = batch_chunks(view, full, config=config, key_suffix=b"")
    entities = [deserialize_entity_key(key, entity_key_serialization_version=KEY_VERSION) for key in chunk.keys]
    stored = dict(
        zip(chunk.names, ([Value.FromString(item) for item in values] for values in chunk.values), strict=True)
    )
    for field in view.entity_columns:
        place = list(entities[0].join_keys).index(field.name)
        stored[field.name] = [entity.entity_values[place] for entity in entities]
    return MilvusRows(
        keys=[key.hex() for key in chunk.keys],
        event_micros=chunk.event_micros,
        created_micros=chunk.created_micros,
        columns={column.name: _of_messages(column, stored[column.name]) for column in columns},
    )


def _storable(column: Column, values: Values) -> Values:
    return encode(values, column.kind) if column.is_encoded and not isinstance(values, list) else values


def _of_messages(column: Column, values: list[Any]) -> Values:
    if column.is_encoded:
        return [value.SerializeToString() for value in values]
    return column_array(values, ARROW_TYPES[column.kind], np.ones(len(values), np.bool_))


def check_rows(view: FeatureView, columns: Sequence[Column], rows: MilvusRows, max_length: int) -> None:
    """Refuse what the collection cannot hold: vectors that are null, of another width or not finite, texts too long.

    Raises:
        PackedWriteError: With the view, the key and what is wrong.
    """
    for column in columns:
        values = rows.columns[column.name]
        if column.dim:
            _check_vectors(view, column, values, rows.keys)
        elif column.data_type == DataType.VARCHAR:
            _check_lengths(view, column, _texts(values), rows.keys, max_length)


def _check_vectors(view: FeatureView, column: Column, values: pa.Array, keys: Sequence[str]) -> None:
    lengths = pc.fill_null(pc.list_value_length(values), -1).to_numpy(zero_copy_only=False)
    if (lengths != column.dim).any():
        row = int((lengths != column.dim).argmax())
        got = "null" if lengths[row] < 0 else lengths[row]
        raise _refused(view, keys[row], f"vector {column.name} must be {column.dim} wide (got {got})")
    finite = np.isfinite(_matrix(values, column.dim)).all(axis=1)
    if not finite.all():
        row = int((~finite).argmax())
        raise _refused(view, keys[row], f"vector {column.name} must hold finite 32-bit numbers (got {values[row]})")


def _check_lengths(
    view: FeatureView, column: Column, texts: list[str | None], keys: Sequence[str], max_length: int
) -> None:
    for row, text in enumerate(texts):
        # No character takes more than four bytes.
        if text is not None and len(text) * 4 > max_length and len(text.encode()) > max_length:
            reason = f"{column.name} must take at most {max_length} bytes in Milvus (got {len(text.encode())})"
            raise _refused(view, keys[row], reason)


def _refused(view: FeatureView, key: str, reason: str) -> PackedWriteError:
    where = key_text(bytes.fromhex(key))
    return PackedWriteError(f"feature view {view.name} at entity key {where}: {reason}; nothing was written")


def upsert_requests(
    view: FeatureView, collection: str, columns: Sequence[Column], rows: MilvusRows
) -> Iterator[milvus_pb2.UpsertRequest]:
    """Requests that write the rows, each about `REQUEST_BYTES` long: vectors as the bytes of their matrix."""
    width = 200 + sum(4 * column.dim or 50 for column in columns)
    step = max(1, min(_REQUEST_ROWS, REQUEST_BYTES // width))
    for start in range(0, len(rows.keys), step):
        stop = min(start + step, len(rows.keys))
        part = rows if stop - start == len(rows.keys) else rows.take(np.arange(start, stop))
        yield _request(view, collection, columns, part)


def _request(
    view: FeatureView, collection: str, columns: Sequence[Column], rows: MilvusRows
) -> milvus_pb2.UpsertRequest:
    num_rows = len(rows.keys)
    fields = [
        _text_field(primary_key(view), rows.keys, is_nullable=False),
        _number_field(EVENT_FIELD, DataType.INT64, rows.event_micros),
        _number_field(CREATED_FIELD, DataType.INT64, np.where(rows.created_micros == NO_TIME, 0, rows.created_micros)),
        *(_column_field(column, rows.columns[column.name]) for column in columns),
    ]
    if not any(column.dim for column in columns):
        fields.append(_vector_field(PLACEHOLDER_VECTOR_FIELD, np.zeros((num_rows, PLACEHOLDER_VECTOR_DIM), "<f4")))
    return milvus_pb2.UpsertRequest(collection_name=collection, fields_data=fields, num_rows=num_rows)


def _column_field(column: Column, values: Values) -> schema_pb2.FieldData:
    if column.dim:
        return _vector_field(column.name, _matrix(values, column.dim))
    if column.data_type == DataType.VARCHAR:
        return _text_field(column.name, _texts(values), is_nullable=True)
    assert not isinstance(values, list), "only texts are stored serialised"
    is_valid = np.asarray(pc.is_valid(values))
    if pa.types.is_floating(values.type):
        # NaN is a null, as everywhere in Feast.
        is_valid &= ~np.isnan(pc.fill_null(values, 0).to_numpy(zero_copy_only=False))
    present = values.filter(pa.array(is_valid))
    numbers = present.cast(pa.int64()) if pa.types.is_timestamp(present.type) else present
    return _number_field(column.name, column.data_type, numbers.to_numpy(zero_copy_only=False), is_valid)


_NUMBERS: dict[DataType, tuple[str, Any, str]] = {
    DataType.BOOL: ("bool_data", schema_pb2.BoolArray, "?"),
    DataType.INT32: ("int_data", schema_pb2.IntArray, ""),
    DataType.INT64: ("long_data", schema_pb2.LongArray, ""),
    DataType.FLOAT: ("float_data", schema_pb2.FloatArray, "<f4"),
    DataType.DOUBLE: ("double_data", schema_pb2.DoubleArray, "<f8"),
}


def _number_field(
    name: str, kind: DataType, numbers: npt.NDArray[Any], is_valid: npt.NDArray[np.bool_] | None = None
) -> schema_pb2.FieldData:
    """Numbers of the rows that have one; `is_valid` says which they are."""
    field = schema_pb2.FieldData(field_name=name, type=kind.value)
    slot, message, packed = _NUMBERS[kind]
    target = getattr(field.scalars, slot)
    if packed:
        target.CopyFrom(message.FromString(_packed(np.ascontiguousarray(numbers, packed))))
    else:
        target.data.extend(numbers.tolist())
    if is_valid is not None:
        field.valid_data.extend(is_valid.tolist())
    return field


def _text_field(name: str, texts: Sequence[str | None], *, is_nullable: bool) -> schema_pb2.FieldData:
    field = schema_pb2.FieldData(field_name=name, type=DataType.VARCHAR.value)
    field.scalars.string_data.data.extend([text for text in texts if text is not None])
    if is_nullable:
        field.valid_data.extend([text is not None for text in texts])
    return field


def _vector_field(name: str, matrix: npt.NDArray[np.float32]) -> schema_pb2.FieldData:
    field = schema_pb2.FieldData(field_name=name, type=DataType.FLOAT_VECTOR.value)
    field.vectors.dim = matrix.shape[1]
    field.vectors.float_vector.CopyFrom(schema_pb2.FloatArray.FromString(_packed(matrix)))
    return field


def _packed(numbers: npt.NDArray[Any]) -> bytes:
    """A message whose one field, number 1, is a packed list of numbers of fixed width."""
    raw = numbers.tobytes()
    return b"\x0a" + varint(len(raw)) + raw if raw else b""


def _matrix(values: pa.Array, dim: int) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        flat = values.flatten().to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    return np.ascontiguousarray(flat).reshape(-1, dim)


def _texts(values: Values) -> list[str | None]:
    """Texts as they are stored; a null, which serialises to nothing, is none."""
    if isinstance(values, list):
        return [base64.b64encode(value).decode() if value else None for value in values]
    texts: list[str | None] = values.to_pylist()
    return texts


def stored_values(column: Column, values: Sequence[Any]) -> list[bytes]:
    """What Milvus answers for a column, as Feast's serialised `Value` messages."""
    if column.is_encoded:
        return [base64.b64decode(value) if value else b"" for value in values]
    if column.dim:
        return encode(_lists(column, values), column.kind)
    if column.kind == ValueType.UNIX_TIMESTAMP:
        return encode(pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC")), column.kind)
    return encode(pa.array(values, column.arrow_type), column.kind)


def _lists(column: Column, values: Sequence[Any]) -> pa.Array:
    matrix = np.array(values, np.float32).reshape(-1, column.dim)
    offsets = np.arange(0, matrix.size + 1, column.dim, dtype=np.int32)
    flat = pa.array(matrix.ravel()).cast(column.arrow_type.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=column.arrow_type)
