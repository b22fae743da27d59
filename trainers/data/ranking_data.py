"""Downstream rows with every feature that a ranker may read, joined point in time through Feast.

Dims: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore

from feature_repo.contract import (
    EMBEDDING_FIELD,
    EmbeddingVersion,
    RepoManifest,
    embedding_view,
    feature_reference,
    service_name,
)
from feature_repo.encoding import InputSpec, add_context
from trainers.data.dataset import DatasetSpec
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, Rows, concatenate, encode_sides, label_matrix
from trainers.data.frames import point_in_time_frame
from trainers.data.inputs import context_spec, side_spec
from trainers.data.task_days import VALIDATION_SHARE as VALIDATION_SHARE
from trainers.data.task_days import task_days
from trainers.progress import Progress

CHUNK_ROWS = 50_000
FITTING_ROWS = 50_000
"""Training rows on which moments and vocabularies are fitted."""

Micros = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingData:
    """All impressions of the training and test days."""

    user: InputSpec
    pin: InputSpec
    context: InputSpec
    examples: Examples
    """Inputs with the vectors of all embedding versions, labels [N, T]; in training as known when the test began."""
    user_ids: npt.NDArray[np.int64]
    pin_ids: npt.NDArray[np.int64]
    surfaces: npt.NDArray[np.str_]
    event_micros: Micros
    """Microseconds since the epoch of each impression."""
    sampling_rate: npt.NDArray[np.float64]
    """Probability with which the impression was kept in the log."""
    user_impressions: npt.NDArray[np.int64]
    """Impressions that the user had before, as the features know it."""
    pin_impressions: npt.NDArray[np.int64]
    """The same for the Pin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Rows of one task: learned from, stopped by, and judged on."""

    train: Rows
    validation: Rows
    test: Rows


def widest_service(manifest: RepoManifest) -> str:
    """Ranking service that reads every embedding version."""
    return service_name("ranking", manifest.embeddings)


def read_ranking_data(
    log: EventLog, store: FeatureStore, manifest: RepoManifest, sequence_buckets: int, progress: Progress
) -> RankingData:
    """Impressions of the training and test days with the features of the widest ranking service."""
    window = log.spec.window
    surfaces = log.query(
        f"SELECT DISTINCT surface FROM ({log.impressions_sql(window.train_from, window.test_from)}) ORDER BY surface"
    )["surface"].to_pylist()
    # A training label is what was known when training began; a test label is what came out in the end.
    end = window.until + timedelta(days=max((c.attribution_days for c in log.spec.conversions), default=0))
    train = log.task_labels(window.train_from, window.test_from, known_by=window.test_from)
    rows = pa.concat_tables([train, log.task_labels(window.test_from, window.until, known_by=end)])
    sample = train.take(_sample(train.num_rows))
    service = widest_service(manifest)
    fitting = point_in_time_frame(store, sample, service)
    user = side_spec(
        manifest,
        "user",
        fitting,
        surfaces=surfaces,
        embeddings=manifest.embeddings,
        sequence_buckets=sequence_buckets,
    )
    pin = side_spec(manifest, "pin", fitting, embeddings=manifest.embeddings)
    context = context_spec(surfaces)
    examples, seen = _encode(log.spec, store, service, rows, (user, pin, context), progress)
    return RankingData(
        user=user,
        pin=pin,
        context=context,
        examples=examples,
        user_ids=np.asarray(rows["user_id"]),
        pin_ids=np.asarray(rows["pin_id"]),
        surfaces=np.asarray(rows["surface"].to_pylist(), dtype=np.str_),
        event_micros=_micros(rows["event_timestamp"]),
        sampling_rate=_sampling_rate(rows),
        user_impressions=seen[0],
        pin_impressions=seen[1],
    )


def _sample(num_rows: int) -> npt.NDArray[np.int64]:
    step = max(1, num_rows // FITTING_ROWS)
    return np.arange(0, num_rows, step)


def _encode(
    spec: DatasetSpec,
    store: FeatureStore,
    service: str,
    rows: pa.Table,
    sides: Sequence[InputSpec],
    progress: Progress,
) -> tuple[Examples, list[npt.NDArray[np.int64]]]:
    tasks = [task.name for task in spec.tasks]
    parts: list[Examples] = []
    seen: list[list[npt.NDArray[np.int64]]] = [[], []]
    with progress.stage("point-in-time join, downstream", rows.num_rows) as stage:
        for start in range(0, rows.num_rows, CHUNK_ROWS):
            chunk = rows.slice(start, CHUNK_ROWS)
            frame = add_context(point_in_time_frame(store, chunk, service))
            parts.append(Examples(inputs=encode_sides(sides, frame), labels=label_matrix(chunk, tasks)))
            for counts, view in zip(seen, ("user_activity", "pin_activity"), strict=True):
                counts.append(np.asarray(pc.fill_null(frame[feature_reference(view, "impressions_ever")], 0)))
            stage.advance(chunk.num_rows)
    return concatenate(parts), [np.concatenate(counts) for counts in seen]


def _micros(column: pa.ChunkedArray) -> Micros:
    return np.asarray(pc.cast(pc.cast(column, pa.timestamp("us", tz="UTC")), pa.int64()))


def _sampling_rate(rows: pa.Table) -> npt.NDArray[np.float64]:
    if "sampling_rate" not in rows.column_names:
        return np.ones(rows.num_rows)
    return np.asarray(pc.fill_null(pc.cast(rows["sampling_rate"], pa.float64()), 1.0))


def split(spec: DatasetSpec, data: RankingData, task_name: str) -> Split:
    """Rows of a task in its training, validation and test days; see `task_days` for where training ends."""
    index = [each.name for each in spec.tasks].index(task_name)
    defined = ~np.isnan(data.examples.labels[:, index])
    parts = task_days(spec, task_name).parts()
    return Split(**{name: _between(data, defined, start, end) for name, (start, end) in parts.items()})


def entire_space_rows(spec: DatasetSpec, data: RankingData, task_name: str, clicks: str) -> Rows:
    """Rows of a task's training days on which its click is defined, clicked or not."""
    index = [each.name for each in spec.tasks].index(clicks)
    start, end = task_days(spec, task_name).parts()["train"]
    return _between(data, ~np.isnan(data.examples.labels[:, index]), start, end)


def click_task(spec: DatasetSpec, task_name: str) -> str:
    """Task of the label that a task is conditional on.

    Raises:
        ValueError: It is not conditional, or its condition is not a task on every impression.
    """
    given = spec.task(task_name).given
    found = [each.name for each in spec.tasks if given is not None and each.label == given and each.given is None]
    if not found:
        raise ValueError(
            f"entire_space needs a task with `given`, and a task of that label on every impression (got {task_name} "
            f"given {given}); declare both, or leave entire_space out of the recipe"
        )
    return found[0]


def _between(data: RankingData, defined: npt.NDArray[np.bool_], start: datetime, end: datetime) -> Rows:
    first, last = (round(moment.timestamp() * 1_000_000) for moment in (start, end))
    return np.flatnonzero(defined & (data.event_micros >= first) & (data.event_micros < last))


def with_versions(spec: InputSpec, versions: Sequence[EmbeddingVersion]) -> InputSpec:
    """The inputs of a side with the vectors of these embedding versions alone; attribute vectors stay."""
    kept = {vector_column(spec.side, version) for version in versions}
    return replace(
        spec,
        vectors=tuple(item for item in spec.vectors if item.column in kept or not _is_embedding(item.column)),
    )


def vector_column(entity: str, version: EmbeddingVersion) -> str:
    """Column with the vector of an embedding version."""
    return feature_reference(embedding_view(entity, version.model, version.version), EMBEDDING_FIELD)


def _is_embedding(column: str) -> bool:
    return column.endswith(feature_reference("", EMBEDDING_FIELD)) and "_embedding_" in column


def renamed_vectors(full: InputSpec, part: InputSpec, examples: Examples) -> Examples:
    """The examples under the input names of a spec that lacks some of the vectors; nothing is copied."""
    prefix = f"{full.side}_vector_"
    columns = [item.column for item in full.vectors]
    kept = {name: values for name, values in examples.inputs.items() if not name.startswith(prefix)}
    for i, item in enumerate(part.vectors):
        kept[f"{prefix}{i}"] = examples.inputs[f"{prefix}{columns.index(item.column)}"]
    return Examples(inputs=kept, labels=examples.labels)


def vector_input(spec: InputSpec, version: EmbeddingVersion) -> str:
    """Name of the model input that holds an embedding version's vector on this side."""
    columns = [item.column for item in spec.vectors]
    return f"{spec.side}_vector_{columns.index(vector_column(spec.side, version))}"
