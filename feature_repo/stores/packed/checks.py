"""Checks of a table before anything of it is written: columns, types, keys, times, widths, finite and missing values.

Dims: N rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, Field, ValueType
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.types import FeastType

from feature_repo.contract import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.stores.online.errors import PackedWriteError
from feature_repo.stores.packed.encode import ARROW_TYPES, PACKED_WIDTHS, encode
from feature_repo.stores.packed.entity_keys import JoinKey
from feature_repo.stores.packed.times import NO_TIME

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedTable:
    """N rows of a feature view that can be stored."""

    join_keys: tuple[JoinKey, ...]
    """Join keys of the view."""
    key_columns: list[pa.Array]
    """Their values, without nulls."""
    names: tuple[str, ...]
    """Features of the view."""
    kinds: tuple[ValueType, ...]
    """Their types."""
    columns: list[pa.Array | list[bytes]]
    """Their values: Arrow arrays, or serialised already where only Feast can convert them."""
    event_micros: Integers
    """Unix time of `event_timestamp`."""
    created_micros: Integers
    """Unix time of `created_timestamp`, or `NO_TIME`."""


def view_join_keys(view: FeatureView) -> tuple[JoinKey, ...]:
    """Join keys of a view with their declared types."""
    return tuple(_join_key(column.name, column.dtype) for column in view.entity_columns)


@lru_cache(maxsize=4096)
def _join_key(name: str, dtype: FeastType) -> JoinKey:
    return JoinKey(name=name, kind=dtype.to_value_type())


def checked_table(view: FeatureView, table: pa.Table) -> CheckedTable:
    """The columns of `table` that are stored, in the types in which they are.

    Raises:
        PackedWriteError: Something in the table cannot be stored; the message names view, column and entity key.
    """
    return _Checker(view, table).checked()


class _Checker:
    def __init__(self, view: FeatureView, table: pa.Table) -> None:
        self._view, self._table = view, table
        self._join_keys = view_join_keys(view)
        self._keys: list[pa.Array] = []

    def checked(self) -> CheckedTable:
        self._check_columns()
        self._keys = [self._key_column(key) for key in self._join_keys]
        fields = list(self._view.features)
        return CheckedTable(
            join_keys=self._join_keys,
            key_columns=self._keys,
            names=tuple(field.name for field in fields),
            kinds=tuple(field.dtype.to_value_type() for field in fields),
            columns=[self._feature(field) for field in fields],
            event_micros=self._event_micros(),
            created_micros=self._created_micros(),
        )

    def _check_columns(self) -> None:
        needed = [key.name for key in self._join_keys if key.name != DUMMY_ENTITY_ID]
        needed += [field.name for field in self._view.features] + [EVENT_TIMESTAMP]
        absent = [name for name in needed if name not in self._table.column_names]
        if absent:
            raise self._error(f"table must have the columns {needed} (it lacks {absent})")

    def _error(self, reason: str, row: int | None = None) -> PackedWriteError:
        where = "" if row is None else f" at entity key {self._key_text(row)}"
        return PackedWriteError(f"feature view {self._view.name}{where}: {reason}; nothing of the table was written")

    def _key_text(self, row: int) -> str:
        named = zip(self._join_keys, self._keys, strict=False)
        return ", ".join(f"{key.name}={column[row].as_py()!r}" for key, column in named)

    def _key_column(self, key: JoinKey) -> pa.Array:
        if key.name == DUMMY_ENTITY_ID:
            return pa.array([DUMMY_ENTITY_VAL] * self._table.num_rows, pa.string())
        column = _combined(self._table[key.name])
        kind = ARROW_TYPES.get(key.kind)
        if kind is None:
            raise self._error(f"join key {key.name} must be an integer, string or bytes (it is {key.kind.name})")
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._error(f"join key {key.name} must not be null (it is in row {row})")
        return self._cast(key.name, column, key.kind)

    def _cast(self, name: str, column: pa.Array, kind: ValueType) -> pa.Array:
        try:
            return cast_column(column, kind)
        except pa.ArrowInvalid as error:
            wanted = ARROW_TYPES[kind]
            raise self._error(f"column {name} must hold {wanted} (got {column.type}: {error})") from error

    def _event_micros(self) -> Integers:
        micros, absent = self._micros(EVENT_TIMESTAMP)
        if absent.any():
            raise self._error(f"{EVENT_TIMESTAMP} must not be null", int(absent.argmax()))
        return micros

    def _created_micros(self) -> Integers:
        if CREATED_TIMESTAMP not in self._table.column_names:
            return np.full(self._table.num_rows, NO_TIME)
        micros, absent = self._micros(CREATED_TIMESTAMP)
        return np.where(absent, NO_TIME, micros)

    def _micros(self, name: str) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Unix time in microseconds, nanoseconds rounded up; naive times are UTC, as everywhere in Feast's files."""
        column = _combined(self._table[name])
        if not pa.types.is_timestamp(column.type):
            raise self._error(f"column {name} must hold timestamps (got {column.type})")
        absent = column.is_null().to_numpy(zero_copy_only=False)
        ticks = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        scale = {"s": 1_000_000, "ms": 1000, "us": 1}.get(column.type.unit)
        return (-(-ticks // 1000) if scale is None else ticks * scale), absent

    def _feature(self, field: Field) -> pa.Array | list[bytes]:
        kind = field.dtype.to_value_type()
        column = _combined(self._table[field.name])
        if kind not in ARROW_TYPES:
            return self._converted(field.name, column, kind)
        try:
            column = self._cast(field.name, column, kind)
        except pa.ArrowNotImplementedError:
            return self._converted(field.name, column, kind)
        if kind in PACKED_WIDTHS:
            self._check_lists(field, column)
        elif kind in (ValueType.FLOAT, ValueType.DOUBLE):
            infinite = np.isinf(pc.fill_null(column, 0).to_numpy(zero_copy_only=False))
            if infinite.any():
                row = int(infinite.argmax())
                raise self._error(f"{field.name} must be finite (got {column[row].as_py()})", row)
        elif pa.types.is_list(column.type) and column.flatten().null_count:
            return self._converted(field.name, column, kind)
        return column

    def _converted(self, name: str, column: pa.Array, kind: ValueType) -> list[bytes]:
        """Values as Feast itself converts them."""
        try:
            return encode(column, kind)
        except Exception as error:
            # Feast's conversions raise whatever the value's own operations do.
            raise self._error(f"column {name} must hold {kind.name} (got {column.type}: {error})") from error

    def _check_lists(self, field: Field, column: pa.Array) -> None:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        if is_vector(field):
            self._check_widths(field, column, lengths)
        flat = column.flatten()
        bad = ~np.isfinite(flat.to_numpy(zero_copy_only=False))
        if bad.any():
            at = int(bad.argmax())
            row = int(np.searchsorted(np.cumsum(lengths), at, side="right"))
            raise self._error(f"elements of {field.name} must be finite (got {flat[at].as_py()})", row)

    def _check_widths(self, field: Field, column: pa.Array, lengths: npt.NDArray[np.int32]) -> None:
        """A vector is never null; it has the declared width, or without one that of the first row."""
        if column.null_count:
            row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
            raise self._error(f"vector {field.name} must not be null", row)
        if not len(lengths):
            return
        width = field.vector_length or int(lengths[0])
        other = lengths != width
        if other.any():
            row = int(other.argmax())
            raise self._error(f"vector {field.name} must be {width} wide (got {lengths[row]})", row)


def is_vector(field: Field) -> bool:
    """Whether a field is declared as a vector of fixed width."""
    return bool(field.vector_index or field.vector_length)


def cast_column(column: pa.Array, kind: ValueType) -> pa.Array:
    """Column in the Arrow type in which values of `kind` are stored.

    Raises:
        pyarrow.ArrowInvalid: A value does not fit.
        pyarrow.ArrowNotImplementedError: Arrow does not know how.
    """
    target = ARROW_TYPES[kind]
    if column.type == target:
        return column
    if pa.types.is_floating(column.type) and pa.types.is_integer(target):
        # pandas turns a column of integers with a null into one of floats with a NaN.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_timestamp(target) and pa.types.is_integer(column.type):
        column = column.cast(pa.int64()).cast(pa.timestamp("s", tz="UTC"))
    if pa.types.is_list(target) and not _is_list(column.type):
        raise pa.ArrowNotImplementedError(f"no cast from {column.type} to {target}")
    lossy = pa.types.is_timestamp(target) or (pa.types.is_list(target) and pa.types.is_timestamp(target.value_type))
    return column.cast(target, safe=not lossy)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
