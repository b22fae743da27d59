"""Arrow types of features: as declared where Feast has one Arrow type for them, else as the files hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from feast.types import (
    Array,
    Bytes,
    ImageBytes,
    Map,
    PdfBytes,
    PrimitiveFeastType,
    Set,
    from_feast_to_pyarrow_type,
)

from feature_repo.stores.offline.snapshots import SnapshotError

_BYTES = (Bytes, PdfBytes, ImageBytes)


def declared_type(feast_type: Any) -> pa.DataType | None:
    """Arrow type of a Feast type; none for maps, structs and what holds them, whose shape only the files know."""
    if isinstance(feast_type, Array | Set):
        inner = declared_type(feast_type.base_type)
        return None if inner is None else pa.list_(inner)
    if feast_type in _BYTES:
        return pa.binary()
    if not isinstance(feast_type, PrimitiveFeastType) or feast_type == Map:
        return None
    try:
        return from_feast_to_pyarrow_type(feast_type)
    except ValueError:
        return None


def plain_type(stored: pa.DataType) -> pa.DataType:
    """A file's type without what is only a matter of storage: dictionaries, and lists of a fixed or large size."""
    if pa.types.is_dictionary(stored):
        return plain_type(stored.value_type)
    if pa.types.is_list(stored) or pa.types.is_fixed_size_list(stored) or pa.types.is_large_list(stored):
        return pa.list_(plain_type(stored.value_type))
    return stored


def always_casts(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether `cast_values` takes every value of a type, by the types alone."""
    stored = plain_type(stored)
    if stored == wanted or (pa.types.is_timestamp(stored) and pa.types.is_timestamp(wanted)):
        return True
    if pa.types.is_list(stored) and pa.types.is_list(wanted):
        return always_casts(stored.value_type, wanted.value_type)
    if _is_number(stored) and _is_number(wanted):
        return bool(np.can_cast(stored.to_pandas_dtype(), wanted.to_pandas_dtype()))
    return _is_text(stored) and _is_text(wanted)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def conform(table: pa.Table, columns: Mapping[str, pa.Field], where: str) -> pa.Table:
    """Columns in the types and with the names of their fields.

    Raises:
        SnapshotError: Values do not fit.
    """
    arrays = []
    for name, field in columns.items():
        try:
            arrays.append(cast_values(table[name], field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise SnapshotError(
                f"{where}: {name} must be {field.type} (got {table[name].type}: {error}); write that file again"
            ) from error
    return pa.table(arrays, schema=pa.schema(list(columns.values())))


def cast_values(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Values in another type, none of them changed but for nanoseconds, which are cut to the wanted unit."""
    if values.type == wanted:
        return values
    if pa.types.is_dictionary(values.type):
        return cast_values(values.cast(values.type.value_type), wanted)
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(values.type):
        # A naive timestamp in a file is UTC, as everywhere in Feast.
        return values.cast(pa.timestamp(wanted.unit, tz=values.type.tz), safe=False).cast(wanted)
    return values.cast(wanted)
