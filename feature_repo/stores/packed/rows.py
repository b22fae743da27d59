"""Rows of a feature view on their way into a store: serialised keys and values, newest row per entity key.

Dims: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import extract_text_and_num

from feature_repo.stores.packed.batch_checks import check_vectors
from feature_repo.stores.packed.checks import CheckedTable
from feature_repo.stores.packed.encode import encode
from feature_repo.stores.packed.entity_keys import entity_keys
from feature_repo.stores.packed.times import NO_TIME, to_micros

KEY_VERSION = 3
"""The one version of Feast's entity key serialisation that the packed stores read and write."""

Integers = npt.NDArray[np.int64]
Texts = list[list[str | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChunk:
    """N rows, one per entity key, ready to be stored."""

    keys: list[bytes]
    """Serialised entity keys."""
    names: tuple[str, ...]
    """Features that are written, F of them."""
    values: list[list[bytes]]
    """Per feature, N serialised `Value` messages."""
    event_micros: Integers
    """Unix time of `event_timestamp`."""
    created_micros: Integers
    """Unix time of `created_timestamp`, or `NO_TIME`."""
    texts: Callable[[], Texts]
    """Per feature, values as text where Feast keeps them so; made only by stores that do."""

    def take(self, rows: Integers) -> RowChunk:
        """Some of the rows, in the order asked for."""
        places = rows.tolist()
        return replace(
            self,
            keys=[self.keys[place] for place in places],
            values=[[values[place] for place in places] for values in self.values],
            event_micros=self.event_micros[rows],
            created_micros=self.created_micros[rows],
            texts=lambda: [[texts[place] for place in places] for texts in self.texts()],
        )

    def by_key(self) -> RowChunk:
        """The rows by ascending key."""
        return self.take(np.array(sorted(range(len(self.keys)), key=self.keys.__getitem__), np.int64))


def table_chunks(
    table: CheckedTable, *, num_rows: int, key_suffix: bytes = b"", by_key: bool = False
) -> Iterator[RowChunk]:
    """The rows of a checked table that are to be written, `num_rows` at a time, on demand by ascending key."""
    keys = entity_keys(table.join_keys, table.key_columns, key_suffix)
    kept = newest_rows(keys, table.event_micros, table.created_micros)
    if by_key:
        kept = np.array(sorted(kept.tolist(), key=keys.__getitem__), np.int64)
    for start in range(0, len(kept), num_rows):
        rows = kept[start : start + num_rows]
        columns = [_taken(column, rows) for column in table.columns]
        encoded = [
            column if isinstance(column, list) else encode(column, kind)
            for column, kind in zip(columns, table.kinds, strict=True)
        ]
        yield RowChunk(
            keys=[keys[row] for row in rows.tolist()],
            names=table.names,
            values=encoded,
            event_micros=table.event_micros[rows],
            created_micros=table.created_micros[rows],
            texts=partial(_texts, columns),
        )


def _taken(column: pa.Array | list[bytes], rows: Integers) -> pa.Array | list[bytes]:
    """Rows of a column; of an Arrow array without a copy where they are consecutive."""
    if isinstance(column, list):
        return [column[row] for row in rows.tolist()]
    if len(rows) and (np.diff(rows) == 1).all():
        return column.slice(int(rows[0]), len(rows))
    return column.take(pa.array(rows))


def newest_rows(keys: Sequence[bytes], event_micros: Integers, created_micros: Integers) -> Integers:
    """Rows to keep, ascending: per key the newest event_timestamp, then created_timestamp, then the last row."""
    if len(set(keys)) == len(keys):
        return np.arange(len(keys), dtype=np.int64)
    newest: dict[bytes, int] = {}
    for row in np.lexsort((created_micros, event_micros)).tolist():
        newest[keys[row]] = row
    return np.array(sorted(newest.values()), np.int64)


def _texts(columns: Sequence[pa.Array | list[bytes]]) -> Texts:
    return [_column_texts(column) for column in columns]


def _column_texts(column: pa.Array | list[bytes]) -> list[str | None]:
    if isinstance(column, list) or pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return [None] * len(column)
    if pa.types.is_string(column.type):
        return list(column.to_pylist())
    if pa.types.is_timestamp(column.type):
        return [None] * len(column)
    if pa.types.is_boolean(column.type) or column.null_count:
        return [None if value is None or value != value else str(value) for value in column.to_pylist()]
    values = column.to_numpy()
    texts: list[str | None] = list(map(str, values.tolist()))
    for row in np.flatnonzero(values != values).tolist():
        texts[row] = None
    return texts


def batch_chunks(
    view: FeatureView, data: Sequence[Any], *, config: RepoConfig, key_suffix: bytes = b""
) -> list[RowChunk]:
    """Rows of Feast's `online_write_batch`, one chunk per set of features that they hold.

    Args:
        view: Its declared vectors are checked.
        data: Entity key, values by feature, event and created timestamp; naive ones are UTC.

    Raises:
        PackedWriteError: A vector is null, of another width or not finite.
    """
    check_key_version(config, view.name)
    check_vectors(view, data)
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in data:
        groups.setdefault(tuple(row[1]), []).append(row)
    return [_batch_chunk(names, rows, key_suffix) for names, rows in groups.items()]


def check_key_version(config: RepoConfig, view: str) -> None:
    """Raise `ValueError` for a repo that serialises entity keys in another way."""
    if config.entity_key_serialization_version != KEY_VERSION:
        raise ValueError(
            f"entity_key_serialization_version must be {KEY_VERSION} for feature view {view} in a packed store "
            f"(got {config.entity_key_serialization_version}); change it in feature_store.yaml"
        )


def _batch_chunk(names: tuple[str, ...], rows: list[Any], key_suffix: bytes) -> RowChunk:
    keys = [serialize_entity_key(row[0], entity_key_serialization_version=KEY_VERSION) + key_suffix for row in rows]
    event_micros = np.array([to_micros(row[2]) for row in rows], np.int64)
    created_micros = np.array([NO_TIME if row[3] is None else to_micros(row[3]) for row in rows], np.int64)
    kept = newest_rows(keys, event_micros, created_micros)
    chosen = [rows[row] for row in kept.tolist()]
    return RowChunk(
        keys=[keys[row] for row in kept.tolist()],
        names=names,
        values=[[row[1][name].SerializeToString() for row in chosen] for name in names],
        event_micros=event_micros[kept],
        created_micros=created_micros[kept],
        texts=lambda: [[extract_text_and_num(row[1][name], False)[0] for row in chosen] for name in names],
    )
