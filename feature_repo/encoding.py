"""Feature columns to model inputs, the same code in training and serving.

An `InputSpec` is fitted once on training frames, stored as JSON in a manifest and applied everywhere, so a model
cannot see one thing in training and another when it serves.

Dims: N rows, F dense columns, C categorical columns, L longest list, D width of a vector.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]

_MIX = np.uint64(0x9E3779B97F4A7C15)
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseInput:
    """A number, or the length of a list: optionally `log(1 + x)`, then standardised; a missing one becomes 0 and raises
    its flag."""

    column: str
    log: bool
    mean: float
    scale: float
    """Standard deviation on the training frame, never 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoricalInput:
    """A value looked up in a vocabulary; index 0 is for missing and unseen values."""

    column: str
    vocabulary: tuple[str, ...] | tuple[int, ...]
    """Known values in order; the first has index 1."""

    @property
    def size(self) -> int:
        """Number of indices, the one for missing included."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiValuedInput:
    """A list of values looked up in a vocabulary: the last `length` of them, padded with 0."""

    column: str
    vocabulary: tuple[str, ...] | tuple[int, ...]
    length: int

    @property
    def size(self) -> int:
        """Number of indices, the one for missing included."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class IdInput:
    """An entity key, or a list of them, hashed into `buckets`; bucket 0 is for padding and missing keys."""

    column: str
    buckets: int
    length: int = 0
    """Longest list, the newest kept; 0 for a single key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorInput:
    """A float list of fixed width; one more column says whether it was present."""

    column: str
    dim: int


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """All inputs of one side of a model: `user`, `pin` or `context`."""

    side: str
    dense: tuple[DenseInput, ...] = ()
    categorical: tuple[CategoricalInput, ...] = ()
    multi_valued: tuple[MultiValuedInput, ...] = ()
    ids: tuple[IdInput, ...] = ()
    lists: tuple[DenseInput, ...] = ()
    """Number lists that accompany an id list (ages of a sequence), padded like it; `list_length` long."""
    list_length: int = 0
    vectors: tuple[VectorInput, ...] = ()

    def columns(self) -> list[str]:
        """Feature columns that `encode` reads."""
        groups = (self.dense, self.categorical, self.multi_valued, self.ids, self.lists, self.vectors)
        return [item.column for group in groups for item in group]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form for a manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> InputSpec:
        """Spec read back from `to_dict`, also after a trip through JSON."""
        kinds = {
            "dense": DenseInput,
            "categorical": CategoricalInput,
            "multi_valued": MultiValuedInput,
            "ids": IdInput,
            "lists": DenseInput,
            "vectors": VectorInput,
        }
        parsed: dict[str, Any] = {"side": raw["side"], "list_length": raw["list_length"]}
        for name, kind in kinds.items():
            items = [{k: tuple(v) if isinstance(v, list) else v for k, v in item.items()} for item in raw[name]]
            parsed[name] = tuple(kind(**item) for item in items)
        return cls(**parsed)

    def fingerprint_text(self) -> str:
        """Canonical text, for hashes that must change when the spec does."""
        return json.dumps(self.to_dict(), sort_keys=True)


def context_table(surfaces: Sequence[str], moments: Sequence[datetime]) -> pa.Table:
    """Context columns of requests or impressions: `surface`, `hour` (0-23, UTC) and `weekday` (0 is Monday)."""
    when = pa.array(moments, pa.timestamp("us", tz="UTC"))
    return add_context(pa.table({"surface": pa.array(surfaces, pa.string()), "event_timestamp": when}))


def add_context(frame: pa.Table) -> pa.Table:
    """The frame with `hour` and `weekday` appended, computed from its `event_timestamp`."""
    when = frame["event_timestamp"]
    return frame.append_column("hour", pc.hour(when)).append_column("weekday", pc.day_of_week(when))


def hash_ids(ids: Array, buckets: int) -> Array:
    """Bucket 1 to `buckets - 1` of each int64 key, the same on every machine and in every release.

    Raises:
        ValueError: There is no bucket beside the one for missing keys.
    """
    if buckets < 2:
        raise ValueError(f"buckets must be at least 2, of which bucket 0 is for missing keys (got {buckets})")
    mixed = ids.astype(np.int64).view(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(32)
    return (mixed % np.uint64(buckets - 1)).astype(np.int64) + 1


def encode(spec: InputSpec, frame: pa.Table) -> dict[str, Array]:
    """Model inputs of one side.

    Returns:
        `{side}_dense` float32 [N, 2F]: values, then missing flags; `{side}_categorical` int64 [N, C];
        `{side}_multi_{i}` int64 [N, L]; `{side}_id_{i}` int64 [N] or [N, L]; `{side}_list_{i}` float32 [N, L];
        `{side}_vector_{i}` float32 [N, D + 1]. A group without inputs is absent.

    What is null or not finite counts as missing: a flag for numbers and vectors, index or bucket 0 for the others.

    Raises:
        KeyError: The frame lacks a column of the spec.
        ValueError: A vector has another width than the spec's.
    """
    absent = [column for column in spec.columns() if column not in frame.column_names]
    if absent:
        raise KeyError(f"the frame lacks {absent}; it has {frame.column_names}")
    inputs: dict[str, Array] = {}
    if spec.dense:
        inputs[f"{spec.side}_dense"] = _dense(spec.dense, frame)
    if spec.categorical:
        columns = [_lookup(item.vocabulary, frame[item.column]) for item in spec.categorical]
        inputs[f"{spec.side}_categorical"] = np.stack(columns, axis=1)
    for i, multi in enumerate(spec.multi_valued):
        rows, slots, values = _unroll(frame[multi.column], multi.length)
        padded = np.zeros((frame.num_rows, multi.length), np.int64)
        padded[rows, slots] = _lookup(multi.vocabulary, values)
        inputs[f"{spec.side}_multi_{i}"] = padded
    for i, ids in enumerate(spec.ids):
        inputs[f"{spec.side}_id_{i}"] = _ids(ids, frame[ids.column])
    for i, item in enumerate(spec.lists):
        inputs[f"{spec.side}_list_{i}"] = _number_list(item, frame[item.column], spec.list_length)
    for i, vector in enumerate(spec.vectors):
        inputs[f"{spec.side}_vector_{i}"] = _vector(vector, frame[vector.column])
    return inputs


def blank(spec: InputSpec, num_rows: int) -> dict[str, Array]:
    """Model inputs of one side for rows of which nothing is known: every name, shape and type that `encode` makes."""
    columns = {column: pa.chunked_array([pa.nulls(num_rows)]) for column in spec.columns()}
    return encode(spec, pa.table(columns or {"row": pa.nulls(num_rows)}))


def _floats(column: pa.ChunkedArray) -> Array:
    """Values as float64 with NaN for null; a list counts as its length."""
    if pa.types.is_list(column.type):
        column = pc.list_value_length(column)
    # Not `safe`: an integer above 2**53 may lose its last digits, where Arrow would refuse it.
    return np.asarray(pc.cast(column, pa.float64(), safe=False), dtype=np.float64)


def _scale(item: DenseInput, values: Array) -> Array:
    """Standardised float64 values that fit into float32; NaN for what is not finite."""
    values = np.where(np.isfinite(values), values, np.nan)
    if item.log:
        values = np.sign(values) * np.log1p(np.abs(values))
    return np.clip((values - item.mean) / item.scale, -_LARGEST, _LARGEST)


def _dense(items: tuple[DenseInput, ...], frame: pa.Table) -> Array:
    values = np.stack([_scale(item, _floats(frame[item.column])) for item in items], axis=1)
    missing = np.isnan(values)
    values[missing] = 0.0
    return np.concatenate([values, missing], axis=1).astype(np.float32)


def _lookup(vocabulary: tuple[Any, ...], column: pa.ChunkedArray | pa.Array) -> Array:
    if not vocabulary:
        return np.zeros(len(column), np.int64)
    known = pa.array(vocabulary)
    index = pc.index_in(pc.cast(column, known.type), value_set=known)
    return np.asarray(pc.fill_null(pc.cast(pc.add(index, 1), pa.int64()), 0).to_numpy(), dtype=np.int64)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_null(column.type):
        # A store that found nothing at all may not say what it looked for.
        return pa.nulls(len(column), pa.list_(pa.int64()))
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _lengths(lists: pa.Array) -> Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def _unroll(column: pa.ChunkedArray, length: int) -> tuple[Array, Array, pa.Array]:
    """Row, slot and value of the last `length` elements of every list."""
    lists = _one_array(column)
    lengths = _lengths(lists)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    slots = np.arange(int(lengths.sum())) - starts - np.maximum(lengths - length, 0)[rows]
    kept = slots >= 0
    return rows[kept], slots[kept], pc.list_flatten(lists).filter(pa.array(kept))


def _ids(item: IdInput, column: pa.ChunkedArray) -> Array:
    if item.length:
        rows, slots, values = _unroll(column, item.length)
        padded = np.zeros((len(column), item.length), np.int64)
        padded[rows, slots] = _hashed(values, item.buckets)
        return padded
    return _hashed(column, item.buckets)


def _hashed(keys: pa.ChunkedArray | pa.Array, buckets: int) -> Array:
    """Bucket of each key, 0 for null."""
    known = np.asarray(pc.is_valid(keys))
    return np.where(known, hash_ids(np.asarray(pc.fill_null(pc.cast(keys, pa.int64()), 0)), buckets), 0)


def _number_list(item: DenseInput, column: pa.ChunkedArray, length: int) -> Array:
    rows, slots, values = _unroll(column, length)
    padded = np.zeros((len(column), length), np.float32)
    padded[rows, slots] = np.nan_to_num(_scale(item, _floats(values)))
    return padded


def _vector(item: VectorInput, column: pa.ChunkedArray) -> Array:
    lists = _one_array(column)
    lengths = _lengths(lists)
    out = np.zeros((len(lists), item.dim + 1), np.float32)
    wrong = set(np.unique(lengths).tolist()) - {0, item.dim}
    if wrong:
        raise ValueError(f"{item.column} must hold vectors of width {item.dim} (got widths {sorted(wrong)})")
    vectors = np.asarray(pc.list_flatten(lists), dtype=np.float32).reshape(-1, item.dim)
    finite = np.isfinite(vectors).all(axis=1)
    present = np.flatnonzero(lengths == item.dim)[finite]
    out[present, : item.dim] = vectors[finite]
    out[present, item.dim] = 1.0
    return out
