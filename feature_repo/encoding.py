"""Feature columns to model inputs, the same code in training and serving.

An `InputSpec` is fitted once on training frames, stored as JSON in a manifest and applied everywhere, so a model
cannot see one thing in training and another when it serves.

Dims: N rows, F dense columns, C categorical columns, L longest list, D width of a vector.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]

REQUEST_ROW = "request_row"
"""Input of a ranker that takes user and context once per request: int64 [B], the row of them that each Pin is for."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_REMIX = np.uint64(0xD1B54A32D192ED03)
_LARGEST = float(np.finfo(np.float32).max)
_FEW_ROWS, _ROWS_A_VALUE = 16, 4
"""Up to so many rows, or rows for each value of a vocabulary, values are looked up one by one: Arrow makes a table of
the whole vocabulary at each call."""


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
    hash: int = 0
    """Number of the hash function; keys that share a bucket under one hardly do under another."""


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
        return list(dict.fromkeys(item.column for group in groups for item in group))

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


def hash_ids(ids: Array, buckets: int, number: int = 0) -> Array:
    """Bucket 1 to `buckets - 1` of each int64 key, the same on every machine and in every release.

    Args:
        number: Which hash function; they are independent of each other.

    Raises:
        ValueError: There is no bucket beside the one for missing keys.
    """
    if buckets < 2:
        raise ValueError(f"buckets must be at least 2, of which bucket 0 is for missing keys (got {buckets})")
    mixed = ids.astype(np.int64).view(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(32)
    for _ in range(number):
        mixed *= _REMIX
        mixed ^= mixed >> np.uint64(29)
    return (mixed % np.uint64(buckets - 1)).astype(np.int64) + 1


class Encoder:
    """Applies a spec; made once by whoever does so often, because what follows from the spec alone is kept."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self._columns = spec.columns()
        self._wanted = frozenset(self._columns)
        self._numbers = [item.column for item in spec.dense]
        self._dense = _Scaling(spec.dense)
        self._lists = [_Scaling((item,)) for item in spec.lists]
        self._categorical = [_Vocabulary(item.vocabulary) for item in spec.categorical]
        self._multi_valued = [_Vocabulary(item.vocabulary) for item in spec.multi_valued]

    def __call__(self, frame: pa.Table) -> dict[str, Array]:
        """As `encode`."""
        spec, side = self.spec, self.spec.side
        if absent := sorted(self._wanted.difference(frame.column_names), key=self._columns.index):
            raise KeyError(f"the frame lacks {absent}; it has {frame.column_names}")
        inputs: dict[str, Array] = {}
        if spec.dense:
            inputs[f"{side}_dense"] = self._dense.flagged(_matrix(frame.select(self._numbers)))
        if spec.categorical:
            pairs = zip(self._categorical, spec.categorical, strict=True)
            inputs[f"{side}_categorical"] = np.stack([known(frame[item.column]) for known, item in pairs], axis=1)
        for i, (known, multi) in enumerate(zip(self._multi_valued, spec.multi_valued, strict=True)):
            rows, slots, values = _unroll(frame[multi.column], multi.length)
            padded = np.zeros((frame.num_rows, multi.length), np.int64)
            padded[rows, slots] = known(values)
            inputs[f"{side}_multi_{i}"] = padded
        for i, ids in enumerate(spec.ids):
            inputs[f"{side}_id_{i}"] = _ids(ids, frame[ids.column])
        for i, (scaling, item) in enumerate(zip(self._lists, spec.lists, strict=True)):
            inputs[f"{side}_list_{i}"] = _number_list(scaling, frame[item.column], spec.list_length)
        for i, vector in enumerate(spec.vectors):
            inputs[f"{side}_vector_{i}"] = _vector(vector, frame[vector.column])
        return inputs


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
    return Encoder(spec)(frame)


def blank(spec: InputSpec, num_rows: int) -> dict[str, Array]:
    """Model inputs of one side for rows of which nothing is known: every name, shape and type that `encode` makes."""
    columns = {column: pa.chunked_array([pa.nulls(num_rows)]) for column in spec.columns()}
    return encode(spec, pa.table(columns or {"row": pa.nulls(num_rows)}))


def _matrix(columns: pa.Table) -> Array:
    """Values of F columns as float64 [F, N], as `_floats` gives those of each."""
    batches = columns.to_batches()
    if len(batches) == 1:
        # Arrow puts numbers of any width together at once, where a call per column is most of a small frame's time.
        with suppress(pa.ArrowTypeError):
            together = batches[0].to_tensor(null_to_nan=True, row_major=False).to_numpy()
            return np.ascontiguousarray(together.T, np.float64)
    return np.stack([_floats(column) for column in columns.columns])


def _floats(column: pa.ChunkedArray | pa.Array) -> Array:
    """Values as float64 with NaN for null; a list counts as its length."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return np.asarray(_one_chunk(column).to_numpy(zero_copy_only=False), dtype=np.float64)
    if pa.types.is_list(kind):
        column = pc.list_value_length(column)
    # Not `safe`: an integer above 2**53 may lose its last digits, where Arrow would refuse it.
    return np.asarray(pc.cast(column, pa.float64(), safe=False), dtype=np.float64)


def _one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class _Scaling:
    """Standardises numbers of F columns, all at once."""

    def __init__(self, items: Sequence[DenseInput]) -> None:
        self._mean = np.array([item.mean for item in items], np.float64)[:, None]
        self._scale = np.array([item.scale for item in items], np.float64)[:, None]
        self._log = np.flatnonzero([item.log for item in items])

    def __call__(self, values: Array) -> Array:
        """Standardised float64 values [F, N] that fit into float32; NaN for what is not finite. They take the place of
        those given."""
        values[~np.isfinite(values)] = np.nan
        if len(self._log):
            raw = values[self._log]
            values[self._log] = np.copysign(np.log1p(np.abs(raw)), raw)
        values -= self._mean
        values /= self._scale
        return np.clip(values, -_LARGEST, _LARGEST, out=values)

    def flagged(self, values: Array) -> Array:
        """Standardised values with 0 for missing, then flags of what is missing, float32 [N, 2F]."""
        values = self(values)
        missing = np.isnan(values)
        values[missing] = 0.0
        num_columns, num_rows = values.shape
        flagged = np.empty((num_rows, 2 * num_columns), np.float32)
        flagged[:, :num_columns], flagged[:, num_columns:] = values.T, missing.T
        return flagged


class _Vocabulary:
    """Looks values up."""

    def __init__(self, values: tuple[str, ...] | tuple[int, ...]) -> None:
        self._values: Sequence[str | int] = values

    def __call__(self, column: pa.ChunkedArray | pa.Array) -> Array:
        """Index of each value, from 1 on; 0 for missing and unseen ones."""
        if not self._values:
            return np.zeros(len(column), np.int64)
        found = column if column.type == self._known.type else pc.cast(column, self._known.type)
        if _ROWS_A_VALUE * len(column) <= len(self._values) or len(column) <= _FEW_ROWS:
            return np.array([self._places.get(value, 0) for value in found.to_pylist()], np.int64)
        index = _one_chunk(pc.index_in(found, value_set=self._known))
        return np.asarray(pc.fill_null(index, -1).to_numpy(zero_copy_only=False), dtype=np.int64) + 1

    @cached_property
    def _known(self) -> pa.Array:
        return pa.array(self._values)

    @cached_property
    def _places(self) -> dict[str | int, int]:
        return {value: place for place, value in enumerate(self._values, 1)}


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_null(column.type):
        # A store that found nothing at all may not say what it looked for.
        return pa.nulls(len(column), pa.list_(pa.int64()))
    return _one_chunk(column) if column.num_chunks else pa.array([], column.type)


def _lengths(lists: pa.Array) -> Array:
    if pa.types.is_list(lists.type) and not lists.null_count:
        offsets: npt.NDArray[np.int32] = lists.offsets.to_numpy()
        return np.diff(offsets).astype(np.int64)
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def _unroll(column: pa.ChunkedArray, length: int) -> tuple[Array, Array, pa.Array]:
    """Row, slot and value of the last `length` elements of every list."""
    lists = _one_array(column)
    lengths, values = _lengths(lists), lists.flatten()
    rows = np.repeat(np.arange(len(lengths)), lengths)
    # Where each list would begin if its last elements were all of it.
    begins = np.cumsum(lengths) - np.minimum(lengths, length)
    slots = np.arange(len(values)) - begins[rows]
    kept = slots >= 0
    return (rows, slots, values) if kept.all() else (rows[kept], slots[kept], values.filter(pa.array(kept)))


def _ids(item: IdInput, column: pa.ChunkedArray) -> Array:
    if item.length:
        rows, slots, values = _unroll(column, item.length)
        padded = np.zeros((len(column), item.length), np.int64)
        padded[rows, slots] = _hashed(values, item)
        return padded
    return _hashed(column, item)


def _hashed(keys: pa.ChunkedArray | pa.Array, item: IdInput) -> Array:
    """Bucket of each key, 0 for null."""
    if not keys.null_count and pa.types.is_int64(keys.type):
        return hash_ids(_one_chunk(keys).to_numpy(), item.buckets, item.hash)
    known = np.asarray(pc.is_valid(keys))
    numbers = np.asarray(pc.fill_null(pc.cast(keys, pa.int64()), 0))
    return np.where(known, hash_ids(numbers, item.buckets, item.hash), 0)


def _number_list(scaling: _Scaling, column: pa.ChunkedArray, length: int) -> Array:
    rows, slots, values = _unroll(column, length)
    padded = np.zeros((len(column), length), np.float32)
    padded[rows, slots] = np.nan_to_num(scaling(_floats(values)[None].copy())[0])
    return padded


def _vector(item: VectorInput, column: pa.ChunkedArray) -> Array:
    lists = _one_array(column)
    lengths = _lengths(lists)
    held = lengths == item.dim
    if not (held | (lengths == 0)).all():
        wrong = sorted(set(np.unique(lengths).tolist()) - {0, item.dim})
        raise ValueError(f"{item.column} must hold vectors of width {item.dim} (got widths {wrong})")
    vectors = np.asarray(pc.list_flatten(lists), dtype=np.float32).reshape(-1, item.dim)
    finite = np.isfinite(vectors)
    if held.all() and finite.all():
        return np.concatenate([vectors, np.ones((len(lists), 1), np.float32)], axis=1)
    out = np.zeros((len(lists), item.dim + 1), np.float32)
    whole = finite.all(axis=1)
    present = np.flatnonzero(held)[whole]
    out[present, : item.dim] = vectors[whole]
    out[present, item.dim] = 1.0
    return out
