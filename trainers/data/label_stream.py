"""What a model learns from, in the order in which it may: rows with the labels that become known at one moment.

A row stands here once for every moment at which a model learns something of it, with all other labels NaN. So a model
of two domains learns a click at once and the conversion when its attribution window has closed, each label once.
Dims: N rows, M entries of the stream, T tasks of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainers.data.dataset import Task
from trainers.data.upstream_data import RowIndex

Keys = npt.NDArray[np.int64]
Labels = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelStream:
    """Entries of one model, by row and then by moment."""

    rows: Keys
    """Position of each entry's row among all rows [M]."""
    known_at: Keys
    """Microseconds since the epoch from which an entry's labels may be learned [M]."""
    labels: Labels
    """Labels [M, T] in the dataset's order of the model's tasks; NaN where an entry says nothing of a task."""
    judged: Labels
    """Labels [M, T] that scores are held against: final ones, NaN where they were not final when rows were read."""
    fake_negatives: frozenset[str] = frozenset()
    """Tasks of which every row enters as a negative, and again as a positive once it converts."""

    def take(self, entries: Keys) -> LabelStream:
        """Some entries, by their positions."""
        return replace(
            self,
            rows=self.rows[entries],
            known_at=self.known_at[entries],
            labels=self.labels[entries],
            judged=self.judged[entries],
        )


class _Part(NamedTuple):
    """Entries that tell some tasks' labels."""

    rows: Keys
    known_at: Keys
    again: bool
    """Whether these are positives whose rows came as negatives before."""
    places: list[int]
    """Positions of the tasks among those of the model."""
    labels: Labels


def label_stream(
    index: RowIndex, tasks: Sequence[Task], columns: Sequence[int], *, fake_negatives: bool = False
) -> LabelStream:
    """Entries of a model: the labels of a domain come together, once all of the row's are known.

    Args:
        tasks: All tasks of the dataset.
        columns: Positions of the model's tasks among them.
        fake_negatives: Wait for no conversion: every row comes at its impression, as a negative of the tasks whose
            labels arrive late, and those that convert come again, as positives, at their conversion.
    """
    parts: list[_Part] = []
    for domain in dict.fromkeys(tasks[column].domain for column in columns):
        places = [place for place, column in enumerate(columns) if tasks[column].domain == domain]
        if fake_negatives and any(columns[place] in index.converted_at for place in places):
            parts += _at_once(index, columns, places)
        else:
            parts.append(_once_all_known(index, columns, places))
    stream, again = _merged(parts, len(columns))
    late = [place for place, column in enumerate(columns) if fake_negatives and column in index.converted_at]
    if not late:
        return stream
    judged = stream.labels.copy()
    for place in late:
        judged[:, place] = np.where(again, np.nan, index.final_labels(columns[place])[stream.rows])
    return replace(stream, judged=judged, fake_negatives=frozenset(tasks[columns[place]].name for place in late))


def _once_all_known(index: RowIndex, columns: Sequence[int], places: list[int]) -> _Part:
    own = [columns[place] for place in places]
    defined = ~np.isnan(index.labels[:, own])
    rows = np.flatnonzero(defined.any(axis=1))
    known_at = np.where(defined[rows], index.known_at[rows][:, own], np.iinfo(np.int64).min).max(axis=1)
    return _Part(rows, known_at, False, places, index.labels[rows][:, own])


def _at_once(index: RowIndex, columns: Sequence[int], places: list[int]) -> Iterator[_Part]:
    own = [columns[place] for place in places]
    rows = np.flatnonzero((~np.isnan(index.labels[:, own])).any(axis=1))
    labels = index.labels[rows][:, own]
    late = [i for i, column in enumerate(own) if column in index.converted_at]
    # Zero where defined: what the label will be must not show.
    labels[:, late] *= 0.0
    yield _Part(rows, index.shown_at[rows], False, places, labels)
    for i in late:
        converted = np.flatnonzero(index.labels[:, own[i]] == 1.0)
        ones = np.ones((len(converted), 1), np.float32)
        yield _Part(converted, index.converted_at[own[i]][converted], True, [places[i]], ones)


def _merged(parts: Sequence[_Part], num_tasks: int) -> tuple[LabelStream, npt.NDArray[np.bool_]]:
    """All parts, those of one row and moment as one entry, and which entries come again."""
    rows, known_at = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    again = np.concatenate([np.full(len(part.rows), part.again) for part in parts])
    order = np.lexsort((again, known_at, rows))
    first = np.ones(len(order), bool)
    first[1:] = np.any([np.diff(each[order].astype(np.int64)) != 0 for each in (rows, known_at, again)], axis=0)
    entry_of = np.empty(len(order), np.int64)
    entry_of[order] = np.cumsum(first) - 1
    labels = np.full((int(first.sum()), num_tasks), np.nan, np.float32)
    start = 0
    for part in parts:
        entries = entry_of[start : start + len(part.rows)]
        labels[entries[:, None], part.places] = part.labels
        start += len(part.rows)
    kept = order[first]
    return LabelStream(rows=rows[kept], known_at=known_at[kept], labels=labels, judged=labels), again[kept]
