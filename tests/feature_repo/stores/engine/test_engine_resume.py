"""A materialization that stops anywhere goes on when it is run again, and ends as if it had not stopped."""

from __future__ import annotations

import os
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.stores.engine.journal import exclusive
from feature_repo.stores.engine.writer import ChunkWriter, LostRowsError
from tests.feature_repo.stores.engine.engine_repos import (
    END,
    REGISTRY,
    START,
    hours,
    open_repo,
    pins,
    read,
    vector_view,
    vectors,
    write_vectors,
)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Keys of each chunk that is handed to the online store from now on."""
    chunks: list[list[int]] = []
    write = ChunkWriter.write

    def watched(self: ChunkWriter, table: pa.Table) -> None:
        chunks.append(table["pin_id"].to_pylist())
        write(self, table)

    monkeypatch.setattr(ChunkWriter, "write", watched)
    return chunks


def fail_after(monkeypatch: pytest.MonkeyPatch, num_chunks: int) -> None:
    """Let the online store take some chunks and then fail, until told otherwise."""
    write = ChunkWriter.write
    taken = 0

    def failing(self: ChunkWriter, table: pa.Table) -> None:
        nonlocal taken
        if taken == num_chunks:
            raise OSError(28, "No space left on device")
        taken += 1
        write(self, table)

    monkeypatch.setattr(ChunkWriter, "write", failing)


def stopped_store(folder: Path, num_chunks: int = 2, num_rows: int = 8) -> FeatureStore:
    """A repo whose materialization stopped after some chunks."""
    view = vector_view(folder)
    write_vectors(folder, vectors(num_rows))
    store = open_repo(folder, [view])
    with pytest.MonkeyPatch.context() as patch:
        fail_after(patch, num_chunks)
        with pytest.raises(OSError, match="No space left") as caught:
            store.materialize(START, END)
    assert f"feature view vectors: {2 * num_chunks} of {num_rows} rows were written" in caught.value.__notes__[0]
    return store


def test_no_interval_is_recorded_until_all_is_written(tmp_path: Path) -> None:
    store = stopped_store(tmp_path)
    assert store.get_feature_view("vectors").materialization_intervals == []
    store.materialize(START, END)
    assert store.get_feature_view("vectors").materialization_intervals == [(START, END)]


def test_nothing_is_left_of_a_whole_materialization(tmp_path: Path, written: list[list[int]]) -> None:
    store = stopped_store(tmp_path)
    store.materialize(START, END)
    assert [path.name for path in (tmp_path / "data" / "materialize").iterdir()] == ["engine.vectors.lock"]
    written.clear()
    store.materialize(START, END)
    assert len(written) == 4


def test_another_interval_that_chooses_the_same_rows_continues(tmp_path: Path, written: list[list[int]]) -> None:
    store = stopped_store(tmp_path)
    written.clear()
    store.materialize(hours(-3), hours(7))
    assert written == [[4, 5], [6, 7]]


@pytest.mark.parametrize("change", ["rows", "interval", "columns"])
def test_everything_is_written_again_when_the_rows_changed(
    tmp_path: Path, written: list[list[int]], change: str
) -> None:
    store = stopped_store(tmp_path)
    end = END
    if change == "rows":
        write_vectors(tmp_path, [{**row, "count": 1} for row in vectors(8)])
    elif change == "interval":
        write_vectors(tmp_path, vectors(8, hours(3)), "b")
        end = hours(3)
    else:
        view = vector_view(tmp_path)
        view.features = view.features[:2]
        store.apply([view])
    written.clear()
    store.materialize(START, end)
    assert list(chain.from_iterable(written)) == list(range(8))


def test_everything_is_written_again_when_the_online_store_was_emptied(
    tmp_path: Path, written: list[list[int]]
) -> None:
    store = stopped_store(tmp_path)
    for path in (tmp_path / "data").glob("online.db*"):
        path.unlink()
    written.clear()
    again = open_repo(tmp_path, [vector_view(tmp_path)])
    again.materialize(START, END)
    assert list(chain.from_iterable(written)) == list(range(8))
    assert read(again, "vectors", pins(8))["count"] == [10 * key for key in range(8)]
    assert store.get_feature_view("vectors").materialization_intervals == [(START, END)]


def test_rows_that_the_online_store_lost_on_the_way_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(6))
    store = open_repo(tmp_path, [view])
    write = ChunkWriter.write

    def losing(self: ChunkWriter, table: pa.Table) -> None:
        if table["pin_id"][0].as_py() != 2:
            write(self, table)

    monkeypatch.setattr(ChunkWriter, "write", losing)
    with pytest.raises(LostRowsError, match=r"feature view vectors .*run again"):
        store.materialize(START, END)
    assert store.get_feature_view("vectors").materialization_intervals == []
    monkeypatch.setattr(ChunkWriter, "write", write)
    store.materialize(START, END)
    assert read(store, "vectors", pins(6))["count"] == [0, 10, 20, 30, 40, 50]


def test_rows_newer_than_the_chunk_do_not_count_as_lost(tmp_path: Path) -> None:
    store = stopped_store(tmp_path)
    entity = {"pin_id": [0], "embedding": [[1.0, 1.0, 1.0]], "count": [99], "label": ["pushed"]}
    times = {"event_timestamp": [hours(9)], "created_timestamp": [datetime.now(UTC)]}
    store.write_to_online_store("vectors", inputs={**entity, **times})
    store.materialize(START, END)
    assert read(store, "vectors", pins(2))["count"] == [99, 10]


def test_second_materialization_is_told_who_is_at_it(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(2))
    store = open_repo(tmp_path, [view])
    lock = tmp_path / "data" / "materialize" / "engine.vectors.lock"
    expected = rf"feature view vectors must be materialized by one process at a time .*process {os.getpid()} on "
    with exclusive(lock, "vectors"), pytest.raises(RuntimeError, match=expected):
        store.materialize(START, END)
    assert read(store, "vectors", pins(1))["count"] == [None]
    store.materialize(START, END)
    assert read(store, "vectors", pins(1))["count"] == [0]


def test_stale_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(1))
    store = open_repo(tmp_path, [view])
    lock = tmp_path / "data" / "materialize" / "engine.vectors.lock"
    lock.parent.mkdir()
    lock.write_text("process 999999 on nowhere\n")
    store.materialize(START, END)
    assert f"process {os.getpid()} on" in lock.read_text()


def test_sources_that_change_meanwhile_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(4))
    store = open_repo(tmp_path, [view])
    write = ChunkWriter.write
    seen: list[Any] = []

    def replaced(self: ChunkWriter, table: pa.Table) -> None:
        write(self, table)
        if not seen:
            seen.append(write_vectors(tmp_path, [{**row, "count": 1} for row in vectors(4)]))

    monkeypatch.setattr(ChunkWriter, "write", replaced)
    with pytest.raises(ValueError, match="files of feature view vectors must stay as they are"):
        store.materialize(START, END)
    store.materialize(START, END)
    assert read(store, "vectors", pins(4))["count"] == [1, 1, 1, 1]


@pytest.mark.parametrize("registry", [{}, {"registry_store_type": REGISTRY}], ids=["feasts_registry", "our_registry"])
@pytest.mark.parametrize("fails", [False, True])
def test_view_that_another_process_materializes_meanwhile_keeps_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: dict[str, Any], fails: bool
) -> None:
    views = [vector_view(tmp_path, name) for name in ("slow", "quick")]
    for view in views:
        write_vectors(tmp_path, vectors(4), name=view.name)
    store = open_repo(tmp_path, views, registry=registry)
    write, meanwhile = ChunkWriter.write, [open_repo(tmp_path, views, registry=registry)]
    store.refresh_registry()

    def with_another(self: ChunkWriter, table: pa.Table) -> None:
        if meanwhile:
            meanwhile.pop().materialize(START, END, feature_views=["quick"])
            if fails:
                raise OSError(28, "No space left on device")
        write(self, table)

    monkeypatch.setattr(ChunkWriter, "write", with_another)
    with pytest.raises(OSError, match="No space left") if fails else nullcontext():
        store.materialize(START, END, feature_views=["slow"])
    again = open_repo(tmp_path, views, registry=registry)
    intervals = [again.get_feature_view(view.name).materialization_intervals for view in views]
    assert intervals == [[] if fails else [(START, END)], [(START, END)]]
