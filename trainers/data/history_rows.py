"""Interactions from before the log as training rows that only upstream sees.

The first history of a dataset lists the Pins that a user met, oldest first; another history that is named like a
label says which Pins got that label. Each Pin of the first becomes a row: what came before it in the list is the
input, the label is whether it is in the other list. Activity and context are unknown there, and missing.
Dims: N rows, L longest sequence, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contract import EVENT_TIMESTAMP, feature_reference, history_view, join_key
from feature_repo.encoding import Array, InputSpec, hash_ids
from trainers.data.dataset import Task
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, encode_sides
from trainers.data.upstream_data import UpstreamSpecs, attribute_frame

CHUNK_USERS = 4_000
"""Users whose rows are made at once."""

Keys = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryRows:
    """One chunk of rows."""

    examples: Examples
    """Encoded sides, labels [N, T]."""
    user_ids: Keys
    pin_ids: Keys


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lists:
    """The first history of some users, unnested: N interactions, grouped by user, oldest first."""

    users: Keys
    pins: Keys
    first: Keys
    """Position of the first interaction of each row's user."""


class HistoryReader:
    """Chunks of history rows in a seeded order of users; can be iterated again and again."""

    def __init__(
        self,
        log: EventLog,
        offline: Path,
        specs: UpstreamSpecs,
        tasks: Sequence[Task],
        *,
        before: datetime,
        seed: int,
    ) -> None:
        """
        Args:
            before: Histories that may be used only later than this are left out.
        """
        self._specs, self._tasks, self._seed = specs, tasks, seed
        self._attributes = {entity: attribute_frame(offline, entity, before) for entity in ("user", "pin")}
        self._histories = {name: _read(log.history_path(name), before) for name in log.spec.histories}

    @property
    def num_rows(self) -> int:
        """Interactions in the first history."""
        tables = list(self._histories.values())
        return int(pc.sum(pc.list_value_length(tables[0]["pin_ids"])).as_py() or 0) if tables else 0

    def __iter__(self) -> Iterator[HistoryRows]:
        """Chunks of whole users."""
        if not self.num_rows:
            return
        met = next(iter(self._histories.values()))
        order = np.random.default_rng(self._seed).permutation(met.num_rows)
        for start in range(0, len(order), CHUNK_USERS):
            yield self._chunk(_unnested(met.take(pa.array(order[start : start + CHUNK_USERS]))))

    def _chunk(self, lists: _Lists) -> HistoryRows:
        names = list(self._histories)
        marked = {name: _marked(lists, self._histories[name]) for name in names[1:]}
        labels = np.full((len(lists.pins), len(self._tasks)), np.nan, np.float32)
        for i, task in enumerate(self._tasks):
            if task.label in marked:
                labels[:, i] = marked[task.label]
        inputs = self._side(self._specs.user, lists.users) | self._side(self._specs.pin, lists.pins)
        inputs |= _prefixes(self._specs.user, lists, {names[0]: np.ones(len(lists.pins), bool), **marked}, inputs)
        num_context = len(self._specs.context.categorical)
        inputs["context_categorical"] = np.zeros((len(lists.pins), num_context), np.int32)
        return HistoryRows(examples=Examples(inputs=inputs, labels=labels), user_ids=lists.users, pin_ids=lists.pins)

    def _side(self, spec: InputSpec, keys: Keys) -> dict[str, Array]:
        """Inputs of one side from attributes and keys alone, encoded once per entity."""
        unique, rows = np.unique(keys, return_inverse=True)
        encoded = encode_sides([spec], entity_frame(spec, self._attributes[spec.side], unique))
        return {name: values[rows] for name, values in encoded.items()}


def entity_frame(spec: InputSpec, attributes: pa.Table, keys: Keys) -> pa.Table:
    """Frame with the attributes of these entities and null for every other input of a side."""
    key = join_key(spec.side)
    named = feature_reference(f"{spec.side}_attributes", key)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    if named in attributes.column_names:
        at = pc.index_in(pa.array(keys), value_set=pc.cast(_flat(attributes[named]), pa.int64()))
        columns = {name: attributes[name].take(at) for name in spec.columns() if name in attributes.column_names}
    for name, kind in _null_types(spec).items():
        columns.setdefault(name, pa.nulls(len(keys), kind))
    return pa.table({**columns, key: pa.array(keys)})


def _null_types(spec: InputSpec) -> dict[str, pa.DataType]:
    """Arrow type of every input column; one that is read both as a list and as its length is a list."""
    types: dict[str, pa.DataType] = {item.column: pa.float64() for item in spec.dense}
    types |= {item.column: _element(item.vocabulary) for item in spec.categorical}
    types |= {item.column: pa.list_(_element(item.vocabulary)) for item in spec.multi_valued}
    types |= {item.column: pa.list_(pa.int64()) for item in spec.ids if item.length}
    types |= {item.column: pa.list_(pa.float64()) for item in spec.lists}
    return types | {item.column: pa.list_(pa.float32()) for item in spec.vectors}


def _element(vocabulary: Sequence[str] | Sequence[int]) -> pa.DataType:
    return pa.int64() if vocabulary and isinstance(vocabulary[0], int) else pa.string()


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)


def _read(path: Path | None, before: datetime) -> pa.Table:
    if path is None:
        raise FileNotFoundError("the event log must hold every declared history (got none); ingest again")
    table = pq.read_table(path)
    when = table[EVENT_TIMESTAMP]
    return table.filter(pc.less_equal(when, pa.scalar(before, when.type)))


def _unnested(table: pa.Table) -> _Lists:
    lists = _flat(table["pin_ids"])
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
    return _Lists(
        users=np.repeat(np.asarray(table["user_id"]), lengths),
        pins=np.asarray(pc.list_flatten(lists), dtype=np.int64),
        first=np.repeat(np.cumsum(lengths) - lengths, lengths),
    )


def _marked(lists: _Lists, table: pa.Table) -> Mask:
    """Whether each interaction's Pin is in the user's list of another history."""
    other = _unnested(table)
    pairs = np.stack([np.concatenate([lists.users, other.users]), np.concatenate([lists.pins, other.pins])])
    _, codes = np.unique(pairs, axis=1, return_inverse=True)
    codes = codes.ravel()
    return np.isin(codes[: len(lists.pins)], codes[len(lists.pins) :])


def _prefixes(
    spec: InputSpec, lists: _Lists, marked: Mapping[str, Mask], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Sequences and their lengths as they were before each interaction."""
    found: dict[str, Array] = {}
    dense = inputs[f"{spec.side}_dense"].copy()
    id_columns, dense_columns = ([item.column for item in group] for group in (spec.ids, spec.dense))
    for name, mask in marked.items():
        column = feature_reference(history_view(name), "pin_ids")
        slot, number = id_columns.index(column), dense_columns.index(column)
        found[f"{spec.side}_id_{slot}"], counts = _before(lists, mask, spec.ids[slot].length, spec.ids[slot].buckets)
        dense[:, number] = np.log1p(counts)
        dense[:, number + len(spec.dense)] = 0.0
    return {**found, f"{spec.side}_dense": dense}


def _before(lists: _Lists, mask: Mask, length: int, buckets: int) -> tuple[Array, Keys]:
    """Buckets [N, L] of the last marked Pins before each interaction, oldest first, and how many there were."""
    kept = np.concatenate([hash_ids(lists.pins[mask], buckets), [0]]).astype(np.int32)
    num_before: Keys = np.cumsum(mask) - mask
    counts: Keys = num_before - num_before[lists.first]
    shown = np.minimum(counts, length)
    slots = np.arange(length)
    at = (num_before - shown)[:, None] + slots
    return np.where(slots < shown[:, None], kept[np.minimum(at, len(kept) - 1)], 0), counts
