"""When a model learns which label of which row, worked out by hand on six impressions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.data.tiny_log import TIME, at, ingest_tiny, tiny_spec, tiny_tables
from trainers.data.dataset import DatasetSpec, Task
from trainers.data.label_stream import LabelStream, label_stream
from trainers.data.manifest import model_columns
from trainers.data.upstream_data import RowIndex, row_index

NAN = float("nan")
TWICE = tiny_spec(
    tasks=(*tiny_spec().tasks, Task(name="met", label="click", domain="conversion")), window=tiny_spec().window
)
"""The tiny shop with a task of the conversion domain that is known at once."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> RowIndex:
    """Six impressions: 0, 2, 3 and 4 are clicked, 0 is bought from a day and a half later, 3 too late."""
    _, log = ingest_tiny(tmp_path_factory.mktemp("log"), tiny_tables())
    return row_index(log, at(6))


def stream(index: RowIndex, model: str, *, spec: DatasetSpec | None = None, at_once: bool = False) -> LabelStream:
    """What a model learns."""
    declared = spec or tiny_spec()
    return label_stream(index, declared.tasks, model_columns(declared, model), fake_negatives=at_once)


def listed(found: LabelStream) -> list[tuple[int, datetime, list[float]]]:
    """Entries, with -1 for labels that they say nothing of."""
    moments = pa.array(found.known_at, pa.int64()).cast(TIME).to_pylist()
    return list(zip(found.rows.tolist(), moments, np.nan_to_num(found.labels, nan=-1).tolist(), strict=True))


def test_model_of_one_domain_learns_each_row_once(index: RowIndex) -> None:
    assert listed(stream(index, "ctr")) == [
        (0, at(2, 1), [1]),
        (1, at(2, 9), [0]),
        (2, at(3, 1), [1]),
        (3, at(3, 2), [1]),
        (4, at(5, 3), [1]),
        (5, at(5, 4), [0]),
    ]
    # Two days after the impression, whatever happened before.
    assert listed(stream(index, "cvr")) == [
        (0, at(4, 1), [1]),
        (2, at(5, 1), [0]),
        (3, at(5, 2), [0]),
        (4, at(7, 3), [0]),
    ]


def test_unified_model_learns_clicks_at_once_and_purchases_when_their_window_has_closed(index: RowIndex) -> None:
    assert listed(stream(index, "unified")) == [
        (0, at(2, 1), [1, -1]),
        (0, at(4, 1), [-1, 1]),
        (1, at(2, 9), [0, -1]),
        (2, at(3, 1), [1, -1]),
        (2, at(5, 1), [-1, 0]),
        (3, at(3, 2), [1, -1]),
        (3, at(5, 2), [-1, 0]),
        (4, at(5, 3), [1, -1]),
        (4, at(7, 3), [-1, 0]),
        (5, at(5, 4), [0, -1]),
    ]


def test_labels_of_two_domains_that_are_known_at_one_moment_come_together(tmp_path: Path) -> None:
    spec = tiny_spec(
        tasks=(
            Task(name="click", label="click", domain="engagement"),
            Task(name="met", label="click", domain="conversion", given="click"),
        ),
        cvr_task="met",
    )
    _, log = ingest_tiny(tmp_path, tiny_tables(), spec)
    found = listed(stream(row_index(log, at(6)), "unified", spec=spec))
    assert [(row, labels) for row, _, labels in found] == [
        (0, [1, 1]),
        (1, [0, -1]),
        (2, [1, 1]),
        (3, [1, 1]),
        (4, [1, 1]),
        (5, [0, -1]),
    ]


def test_fake_negatives_enter_at_the_impression_and_again_at_the_conversion(index: RowIndex) -> None:
    found = stream(index, "cvr", at_once=True)
    assert listed(found) == [
        (0, at(2, 1), [0]),
        (0, at(3, 12), [1]),
        (2, at(3, 1), [0]),
        (3, at(3, 2), [0]),
        (4, at(5, 3), [0]),
    ]
    assert found.fake_negatives == {"purchase"}
    # Judged by what came out, once it is certain, and by each row once.
    np.testing.assert_array_equal(found.judged[:, 0], [1, NAN, 0, 0, NAN])


def test_fake_negatives_of_the_unified_model_leave_clicks_as_they_are(index: RowIndex) -> None:
    found = stream(index, "unified", at_once=True)
    assert listed(found) == [
        (0, at(2, 1), [1, 0]),
        (0, at(3, 12), [-1, 1]),
        (1, at(2, 9), [0, -1]),
        (2, at(3, 1), [1, 0]),
        (3, at(3, 2), [1, 0]),
        (4, at(5, 3), [1, 0]),
        (5, at(5, 4), [0, -1]),
    ]
    assert np.nan_to_num(found.judged, nan=-1).tolist() == [[1, 1], [-1, -1], [0, -1], [1, 0], [1, 0], [1, -1], [0, -1]]


def test_task_that_is_known_at_once_does_not_wait_for_the_others_of_its_domain(tmp_path: Path) -> None:
    _, log = ingest_tiny(tmp_path, tiny_tables(), TWICE)
    index = row_index(log, at(6))
    waiting = listed(stream(index, "cvr", spec=TWICE))
    assert [(row, moment) for row, moment, _ in waiting if row in (0, 1)] == [(0, at(4, 1)), (1, at(2, 9))]
    at_once = listed(stream(index, "cvr", spec=TWICE, at_once=True))
    assert at_once[:3] == [(0, at(2, 1), [0, 1]), (0, at(3, 12), [1, -1]), (1, at(2, 9), [-1, 0])]


def test_conversion_at_the_moment_of_the_impression_is_a_negative_and_a_positive(tmp_path: Path) -> None:
    tables = tiny_tables()
    tables["conversions"]["event_timestamp"] = pa.array([at(2, 1), at(5, 3)], TIME)
    _, log = ingest_tiny(tmp_path, tables)
    found = listed(stream(row_index(log, at(6)), "cvr", at_once=True))
    assert found[:2] == [(0, at(2, 1), [0]), (0, at(2, 1), [1])]


@pytest.mark.parametrize("model", ["cvr", "unified"])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("cutoff", [at(3), at(4), at(5)])
def test_nothing_after_a_cutoff_enters(
    index: RowIndex, tmp_path: Path, model: str, at_once: bool, cutoff: datetime
) -> None:
    tables = tiny_tables()
    for name in ("impressions", "conversions"):
        table = pa.table(tables[name])
        before = pc.less(table["event_timestamp"], pa.scalar(cutoff, TIME))
        tables[name] = {column: table.filter(before)[column] for column in table.column_names}
    _, log = ingest_tiny(tmp_path, tables)
    known, whole = (
        [entry for entry in listed(stream(each, model, at_once=at_once)) if entry[1] < cutoff]
        for each in (row_index(log, cutoff), index)
    )
    assert known == whole
    assert known or cutoff < at(5)


def test_taken_entries_keep_everything_that_belongs_to_them(index: RowIndex) -> None:
    found = stream(index, "cvr", at_once=True)
    taken = found.take(np.array([1, 0]))
    assert listed(taken) == [listed(found)[1], listed(found)[0]]
    np.testing.assert_array_equal(taken.judged[:, 0], [NAN, 1])
    assert taken.fake_negatives == found.fake_negatives
