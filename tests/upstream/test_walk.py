"""The walk forward in time: nothing of the future, and the same result however often it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.data.tiny_log import at
from tests.upstream import worlds
from trainers.anomalies import TrainingAnomalyError
from trainers.metrics import roc_auc
from trainers.progress import SilentProgress, Stage
from trainers.run_lock import run_lock
from trainers.upstream.trainer import UpstreamExamples
from trainers.upstream.vector_files import read_vectors, vector_column
from trainers.upstream.walk import daily_file, walk, write_embeddings

DAYS = (40, 30, 50, 20)
SILENT = SilentProgress()


class StoppingProgress(SilentProgress):
    """Raises in a stage after so many rows."""

    def __init__(self, stage: str, rows: int) -> None:
        self._stage, self._left = stage, rows

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage."""
        del total
        yield self if name.startswith(self._stage) else SilentStage()  # type: ignore[misc]

    def advance(self, num_done: int = 1) -> None:
        """Count rows."""
        self._left -= num_done
        if self._left < 0:
            raise KeyboardInterrupt


class SilentStage:
    """Shows nothing."""

    def advance(self, num_done: int = 1) -> None:
        """Nothing to show."""


def embeddings(out: Path) -> dict[str, pa.Table]:
    """Every daily file under a folder."""
    return {str(file.relative_to(out)): pq.ParquetFile(file).read() for file in sorted(out.rglob("date=*.parquet"))}


def vectors(out: Path, entity: str, cutoff: datetime) -> np.ndarray:
    """Embeddings of one cut-off."""
    return np.stack(pq.ParquetFile(daily_file(out, entity, cutoff)).read()["embedding"].to_numpy())


@pytest.fixture(scope="module")
def stream() -> UpstreamExamples:
    """Rows of four days."""
    return worlds.rows(sum(DAYS))


@pytest.fixture(scope="module")
def straight(stream: UpstreamExamples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a walk that was not interrupted."""
    out = tmp_path_factory.mktemp("straight")
    walk(worlds.trainer(), worlds.data(stream, worlds.known_at(*DAYS)), worlds.plan(out, len(DAYS)), SILENT)
    return out


def test_walk_writes_unit_vectors_of_every_entity_from_the_first_asked_for(straight: Path) -> None:
    found = embeddings(straight)
    expected = [f"daily/{entity}/date=2024-01-0{day}.parquet" for entity in ("pin", "user") for day in (2, 3, 4, 5)]
    assert list(found) == expected
    for table in found.values():
        norms = np.linalg.norm(np.stack(table["embedding"].to_numpy()), axis=1)
        np.testing.assert_allclose(norms, 1.0, atol=1e-5)
    assert found[expected[0]]["pin_id"].to_pylist() == list(range(worlds.NUM_PINS))


@pytest.mark.parametrize("rows_before", [0, 50, 130])
def test_walk_stopped_in_a_day_and_resumed_equals_an_uninterrupted_one(
    stream: UpstreamExamples, straight: Path, tmp_path: Path, rows_before: int
) -> None:
    data, plan = worlds.data(stream, worlds.known_at(*DAYS)), worlds.plan(tmp_path, len(DAYS))
    with pytest.raises(KeyboardInterrupt):
        walk(worlds.trainer(), data, plan, StoppingProgress("train", rows_before))
    curve = walk(worlds.trainer(), data, plan, SILENT)
    assert embeddings(tmp_path) == embeddings(straight)
    assert curve == walk(worlds.trainer(), data, replace(plan, out=straight), SILENT)


def test_walk_stopped_in_pretraining_equals_an_uninterrupted_one(stream: UpstreamExamples, tmp_path: Path) -> None:
    history = (worlds.rows(40, seed=8), worlds.rows(20, seed=9))
    data = worlds.data(stream, worlds.known_at(*DAYS), history)
    one, other = worlds.plan(tmp_path / "one", 2), worlds.plan(tmp_path / "other", 2)
    walk(worlds.trainer(), data, one, SILENT)
    with pytest.raises(KeyboardInterrupt):
        walk(worlds.trainer(), data, other, StoppingProgress("pre-train", 45))
    walk(worlds.trainer(), data, other, SILENT)
    assert embeddings(one.out) == embeddings(other.out)


def test_walk_stopped_by_an_anomaly_and_mended_equals_an_uninterrupted_one(
    stream: UpstreamExamples, straight: Path, tmp_path: Path
) -> None:
    inputs = {name: values.copy() for name, values in stream.examples.inputs.items()}
    inputs["pin_vector_0"][sum(DAYS[:2]) + 7] = np.inf
    broken = replace(stream, examples=replace(stream.examples, inputs=inputs))
    known, plan = worlds.known_at(*DAYS), worlds.plan(tmp_path, len(DAYS))
    with (
        run_lock(tmp_path),
        pytest.raises(
            TrainingAnomalyError, match=r"ctr on 2024-01-03, before its first step: scores must be finite \(got 1 of 50"
        ),
    ):
        walk(worlds.trainer(), worlds.data(broken, known), plan, SILENT)
    (kept,) = (tmp_path / "anomalies").iterdir()
    assert load_file(kept)["rows"].tolist() == [sum(DAYS[:2]) + 7]
    walk(worlds.trainer(), worlds.data(stream, known), plan, SILENT)
    assert embeddings(tmp_path) == embeddings(straight)


def test_walk_that_is_complete_does_nothing_again(stream: UpstreamExamples, straight: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in straight.rglob("*.*")}
    data = worlds.data(stream, worlds.known_at(*DAYS))
    walk(worlds.trainer(), data, worlds.plan(straight, len(DAYS)), StoppingProgress("train", 0))
    assert {file: file.stat().st_mtime_ns for file in straight.rglob("*.*")} == before


def test_walk_never_sees_a_row_that_was_known_at_or_after_the_cutoff(
    stream: UpstreamExamples, straight: Path, tmp_path: Path
) -> None:
    known = worlds.known_at(*DAYS)
    cutoff = at(3)
    future = known >= round(cutoff.timestamp() * 1e6)
    known[np.flatnonzero(future)[0]] = round(cutoff.timestamp() * 1e6)
    inputs = {name: values.copy() for name, values in stream.examples.inputs.items()}
    for name in ("user_dense", "pin_vector_0", "context_categorical", "user_id_1"):
        inputs[name][future] = 1
    labels = stream.examples.labels.copy()
    labels[future] = 1.0 - np.nan_to_num(labels[future])
    pins = np.where(future, 0, stream.pin_ids)
    examples = replace(stream.examples, inputs=inputs, labels=labels)
    changed = replace(stream, examples=examples, pin_ids=pins)
    walk(worlds.trainer(), worlds.data(changed, known), worlds.plan(tmp_path, len(DAYS)), SILENT)
    for entity in ("user", "pin"):
        for day in (2, 3):
            assert (vectors(tmp_path, entity, at(day)) == vectors(straight, entity, at(day))).all()
        assert (vectors(tmp_path, entity, at(4)) != vectors(straight, entity, at(4))).any()


def test_walk_scores_a_day_before_it_trains_on_it(stream: UpstreamExamples, tmp_path: Path) -> None:
    data, rows = worlds.data(stream, worlds.known_at(*DAYS)), np.arange(DAYS[0], DAYS[0] + DAYS[1])
    curve = walk(worlds.trainer(), data, worlds.plan(tmp_path, 2), SILENT)
    yesterday = worlds.trainer()
    walk(yesterday, data, worlds.plan(tmp_path / "first_day", 1), SILENT)
    expected = roc_auc(stream.examples.labels[rows, 0], yesterday.score(stream.examples, rows)[:, 0])
    (point,) = [point for point in curve if (point["day"], point["task"]) == ("2024-01-02", "click")]
    assert point == {"model": "ctr", "day": "2024-01-02", "task": "click", "roc_auc": expected, "n": DAYS[1]}


def test_walk_counts_only_rows_on_which_a_task_is_defined(stream: UpstreamExamples, tmp_path: Path) -> None:
    curve = walk(worlds.trainer(), worlds.data(stream, worlds.known_at(*DAYS)), worlds.plan(tmp_path, 1), SILENT)
    defined = int((~np.isnan(stream.examples.labels[: DAYS[0], 1])).sum())
    assert [(point["task"], point["n"]) for point in curve] == [("click", DAYS[0]), ("like", defined)]


def test_walk_passes_days_without_rows_and_days_of_one_class_or_one_row(tmp_path: Path) -> None:
    counts = (20, 0, 6, 1)
    stream = worlds.rows(sum(counts))
    stream.examples.labels[20:26] = [0.0, np.nan]
    plan = worlds.plan(tmp_path, len(counts), embed_from=2)
    curve = walk(worlds.trainer(), worlds.data(stream, worlds.known_at(*counts)), plan, SILENT)
    assert {point["day"] for point in curve} == {"2024-01-01"}
    assert len(embeddings(tmp_path)) == 8


def test_walk_takes_up_rows_known_before_the_first_cutoff(tmp_path: Path) -> None:
    stream = worlds.rows(10)
    early = np.full(10, round(at(1).timestamp() * 1e6) - 1)
    curve = walk(worlds.trainer(), worlds.data(stream, early), worlds.plan(tmp_path, 1), SILENT)
    assert {point["day"] for point in curve} == {"2023-12-31"}


def test_walk_stops_when_an_embedding_is_not_finite(stream: UpstreamExamples, tmp_path: Path) -> None:
    def broken(entity: str, cutoff: datetime) -> object:
        keys, examples = worlds.active(entity, cutoff)
        poisoned = {name: np.full_like(values, np.nan) for name, values in examples.inputs.items() if "dense" in name}
        return [(keys, examples.with_inputs(poisoned))]

    data = replace(worlds.data(stream, worlds.known_at(*DAYS)), entities=broken)
    with pytest.raises(FloatingPointError, match=r"user embeddings of ctr at 2024-01-02 must be finite \(got 12"):
        walk(worlds.trainer(), data, worlds.plan(tmp_path, 1), SILENT)
    assert embeddings(tmp_path) == {}


def test_entities_embedded_in_chunks_get_the_vectors_of_the_whole(tmp_path: Path) -> None:
    trainer = worlds.trainer()
    keys, examples = worlds.active("pin", at(2))
    parts = [np.arange(len(keys))[:5], np.arange(len(keys))[5:]]
    chunks = [(keys[rows], examples.take(rows)) for rows in parts]
    write_embeddings(trainer, "pin", chunks, tmp_path / "chunks.parquet", "ctr")
    write_embeddings(trainer, "pin", [(keys, examples)], tmp_path / "whole.parquet", "ctr")
    found, whole = (read_vectors(tmp_path / f"{name}.parquet", "pin", 8) for name in ("chunks", "whole"))
    assert found[0].tolist() == whole[0].tolist() == keys.tolist()
    np.testing.assert_allclose(found[1], whole[1], atol=1e-6)


def test_vector_column_holds_the_rows_of_a_matrix() -> None:
    column = vector_column(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    assert (column.type, column.to_pylist()) == (pa.list_(pa.float32()), [[1.0, 2.0], [3.0, 4.0]])
    assert vector_column(np.empty((0, 2), np.float32)).to_pylist() == []


def test_scores_are_held_against_the_labels_that_came_out_where_others_are_learned(tmp_path: Path) -> None:
    stream, known = worlds.rows(sum(DAYS)), worlds.known_at(*DAYS)
    final = stream.examples.labels.copy()
    final[:, 1] = np.nan
    final[:50, 1] = np.arange(50) % 2
    curve = walk(worlds.trainer(), worlds.data(replace(stream, judged=final), known), worlds.plan(tmp_path, 4), SILENT)
    plain = walk(worlds.trainer(), worlds.data(stream, known), worlds.plan(tmp_path / "plain", 4), SILENT)
    # The first day has forty rows, the second ten of those with a final label.
    assert [(each["day"], each["n"]) for each in curve if each["task"] == "like"] == [
        ("2024-01-01", 40),
        ("2024-01-02", 10),
    ]
    clicks = [[each for each in found if each["task"] == "click"] for found in (curve, plain)]
    assert clicks[0] == clicks[1]
