"""What a consumer may read beside a run's own features and vectors, as inputs of a ranker.

Everything is joined point in time through Feast, as of each row's own moment.
Dims: N rows, H histories, L length of a sequence, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import (
    EVENT_TIMESTAMP,
    HISTORY_SERVICE,
    EmbeddingVersion,
    RepoManifest,
    feature_reference,
    history_view,
    join_key,
)
from feature_repo.encoding import Array, DenseInput, IdInput, InputSpec, VectorInput
from trainers.data.examples import encode_sides
from trainers.data.frames import point_in_time_frame
from trainers.data.ranking_data import vector_column
from trainers.data.version_vectors import version_vectors
from trainers.evaluation.arms import RankerJob

CHUNK_ROWS = 50_000
PRIOR_PINS = 20.0
"""Pins of the first history that a rate is smoothed with, at the rate of all users."""
_MICROS_A_DAY = 86_400_000_000

Floats = npt.NDArray[np.float64]


def with_version(job: RankerJob, version: EmbeddingVersion, vectors: Mapping[str, Array]) -> RankerJob:
    """The ranker's rows with vectors [N, E + 1] of one more version; arms say which versions are read."""
    for entity, values in vectors.items():
        job = _with_vector(job, entity, vector_column(entity, version), values)
    return job


def with_past(job: RankerJob, store: Any, version: EmbeddingVersion, days: int) -> RankerJob:
    """The ranker with the vectors that its users had on each of so many days before, to read as a sequence."""
    data, columns = job.data, []
    for ago in range(days, 0, -1):
        moments = data.event_micros - ago * _MICROS_A_DAY
        columns.append(f"{vector_column('user', version)} {ago} days before")
        values = version_vectors(store, version, "user", data.user_ids, moments)
        job = _with_vector(job, "user", columns[-1], values)
    return replace(job, past=tuple(columns))


def _with_vector(job: RankerJob, entity: str, column: str, values: Array) -> RankerJob:
    side: InputSpec = job.data.user if entity == "user" else job.data.pin
    name = f"{entity}_vector_{len(side.vectors)}"
    wider = replace(side, vectors=(*side.vectors, VectorInput(column=column, dim=values.shape[1] - 1)))
    examples = job.data.examples.with_inputs({name: values})
    return replace(job, data=replace(job.data, examples=examples, **{entity: wider}))  # type: ignore[arg-type]


def with_histories(job: RankerJob, store: Any, manifest: RepoManifest) -> RankerJob:
    """The ranker with the long histories themselves: each as a sequence, their lengths, and how often a Pin of the
    first is in each of the others."""
    data, buckets = job.data, job.recipe.sequence_buckets
    columns = [feature_reference(history_view(name), "pin_ids") for name in manifest.histories]
    ids = tuple(IdInput(column=column, buckets=buckets, length=manifest.sequence_length) for column in columns)
    lengths, sequences = _read(store, data.user_ids, data.event_micros, InputSpec(side="user", ids=ids), columns)
    first = len(data.user.ids)
    inputs = {f"user_id_{first + i}": values for i, values in enumerate(sequences)}
    numbers, names = _numbers(lengths, job.split.train), _number_names(manifest.histories)
    dense = tuple(DenseInput(column=name, log=False, mean=0.0, scale=1.0) for name in names)
    missing = np.isnan(lengths[:, :1]).repeat(numbers.shape[1], axis=1)
    inputs["user_dense"] = _beside(data.examples.inputs["user_dense"], numbers, missing)
    wider = replace(data.user, ids=(*data.user.ids, *ids), dense=(*data.user.dense, *dense))
    return replace(job, data=replace(data, user=wider, examples=data.examples.with_inputs(inputs)))


def _read(
    store: Any,
    users: npt.NDArray[np.int64],
    micros: npt.NDArray[np.int64],
    spec: InputSpec,
    columns: list[str],
) -> tuple[Floats, list[Array]]:
    """Lengths of the histories [N, H], NaN without any, and their newest Pins [N, L] each."""
    lengths, parts = [], []
    for start in range(0, len(users), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        when = pa.array(micros[rows], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        asked = pa.table({join_key("user"): pa.array(users[rows], pa.int64()), EVENT_TIMESTAMP: when})
        frame = point_in_time_frame(store, asked, HISTORY_SERVICE)
        found = [pc.cast(pc.list_value_length(frame[column]), pa.float64()).to_numpy() for column in columns]
        lengths.append(np.stack(found, axis=1))
        parts.append(encode_sides([spec], frame))
    sequences = [np.concatenate([part[f"user_id_{i}"] for part in parts]) for i in range(len(columns))]
    return np.concatenate(lengths), sequences


def _number_names(histories: Sequence[str]) -> list[str]:
    first, *others = histories
    return [f"history_{name}__length" for name in histories] + [f"history_{name}__rate_of_{first}" for name in others]


def _numbers(lengths: Floats, train: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Logarithms of the lengths and smoothed rates, standardised on the training rows; 0 where there is no history."""
    known = np.nan_to_num(lengths)
    totals = np.maximum(known[train].sum(axis=0), 1.0)
    rates = (known[:, 1:] + PRIOR_PINS * totals[1:] / totals[0]) / (known[:, :1] + PRIOR_PINS)
    numbers = np.concatenate([np.log1p(known), rates], axis=1)
    of = numbers[train][~np.isnan(lengths[train, 0])]
    if not len(of):
        return np.zeros(numbers.shape, np.float32)
    standard = (numbers - of.mean(axis=0)) / np.maximum(of.std(axis=0), 1e-3)
    return np.where(np.isnan(lengths[:, :1]), 0.0, standard).astype(np.float32)


def _beside(dense: Array, numbers: Array, missing: Array) -> Array:
    """Dense inputs with further numbers: all values first, then all flags."""
    values, flags = np.split(dense, 2, axis=1)
    return np.concatenate([values, numbers, flags, missing], axis=1, dtype=np.float32)
