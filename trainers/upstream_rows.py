"""The rows of a run as one upstream model learns from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainers.data.event_log import EventLog
from trainers.data.examples import Examples
from trainers.data.history_rows import HistoryReader
from trainers.data.label_stream import LabelStream, label_stream
from trainers.data.manifest import model_columns, model_tasks
from trainers.data.row_files import ChosenExamples
from trainers.data.upstream_data import RowIndex, UpstreamRows, UpstreamSpecs
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import UpstreamExamples
from trainers.upstream.walk import EntityInputs, WalkData


def domain_tasks(log: EventLog, model: str) -> tuple[str, ...]:
    """Tasks of the domains that a model is trained on."""
    return tuple(task.name for task in model_tasks(log.spec, model))


def model_stream(log: EventLog, index: RowIndex, model: str, recipe: UpstreamRecipe) -> LabelStream:
    """What a model learns of the rows, and when."""
    columns, at_once = model_columns(log.spec, model), recipe.delayed_feedback == "fake_negatives"
    return label_stream(index, log.spec.tasks, columns, fake_negatives=at_once)


def upstream_examples(stream: LabelStream, encoded: Examples, index: RowIndex) -> UpstreamExamples:
    """Entries of a stream with their inputs and keys.

    Args:
        encoded: Inputs of each entry.
    """
    users, pins = (np.asarray(index.frame[name])[stream.rows] for name in ("user_id", "pin_id"))
    return UpstreamExamples(
        examples=replace(encoded, labels=stream.labels),
        user_ids=users,
        pin_ids=pins,
        judged=stream.judged,
        fake_negatives=stream.fake_negatives,
    )


def walk_data(
    log: EventLog,
    rows: UpstreamRows,
    model: str,
    recipe: UpstreamRecipe,
    entities: EntityInputs,
    history: HistoryReader | None = None,
) -> WalkData:
    """What a model walks over: the rows of its domains, the entities to embed, and the long histories."""
    stream = model_stream(log, rows.index, model, recipe)
    return WalkData(
        stream=upstream_examples(stream, _entries(rows.examples, stream), rows.index),
        known_at=stream.known_at,
        tasks=domain_tasks(log, model),
        entities=entities,
        history=() if history is None else _History(history),
        num_history=0 if history is None else history.num_rows,
    )


def _entries(rows: Examples, stream: LabelStream) -> Examples:
    """The stream's inputs, which stay where the rows' are."""
    return ChosenExamples(inputs=rows.inputs, labels=stream.labels, order=stream.rows)


def of_tasks(data: WalkData, tasks: Sequence[str]) -> WalkData:
    """The same walk with the labels of some of its tasks alone."""
    columns = [data.tasks.index(task) for task in tasks]

    def kept(stream: UpstreamExamples) -> UpstreamExamples:
        judged = None if stream.judged is None else stream.judged[:, columns]
        return replace(stream, examples=stream.examples.with_labels(columns), judged=judged)

    return replace(data, stream=kept(data.stream), tasks=tuple(tasks), history=_Mapped(data.history, kept))


def history_reader(log: EventLog, offline: Path, specs: UpstreamSpecs, model: str, seed: int) -> HistoryReader:
    """The long histories that a model learns from before the first day."""
    before = log.spec.window.features_from
    return HistoryReader(log, offline, specs, model_tasks(log.spec, model), before=before, seed=seed)


class _Mapped:
    """Chunks, each changed as it comes; iterable again and again."""

    def __init__(self, chunks: Iterable[UpstreamExamples], change: Callable[[UpstreamExamples], UpstreamExamples]):
        self._chunks, self._change = chunks, change

    def __iter__(self) -> Iterator[UpstreamExamples]:
        return map(self._change, self._chunks)


class _History:
    """Chunks of a history reader in the form that the walk takes; iterable again and again."""

    def __init__(self, reader: HistoryReader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[UpstreamExamples]:
        for chunk in self._reader:
            yield UpstreamExamples(examples=chunk.examples, user_ids=chunk.user_ids, pin_ids=chunk.pin_ids)
