"""`FeatureStore.materialize` through the engine, against Feast's own engine, on views of every shape."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast import BatchFeatureView, FeatureStore, FeatureView, Field
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.types import Array, Float32, Int64
from feast.utils import _utc_now

from feature_repo.stores.engine.compute_engine import is_plain
from feature_repo.stores.engine.writer import ChunkWriter
from feature_repo.stores.offline.asof_join import EngineMemoryError
from tests.feature_repo.stores.engine.engine_repos import (
    ASOF,
    END,
    ENGINE,
    PACKED_SQLITE,
    PIN,
    START,
    entityless_view,
    hours,
    mapped_view,
    open_repo,
    pins,
    pushed_view,
    read,
    source,
    vector_view,
    vectors,
    write,
    write_mapped,
    write_vectors,
)


@pytest.fixture(params=[PACKED_SQLITE, "sqlite"], ids=["packed", "stock"])
def online(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_materialize_writes_the_newest_row_of_each_key(tmp_path: Path, online: str) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(5), "a")
    write_vectors(tmp_path, [{**row, "count": 7} for row in vectors(3, hours(2))], "b")
    store = open_repo(tmp_path, [view], online=online)
    store.materialize(START, END)
    answer = read(store, "vectors", pins(6))
    assert answer["count"] == [7, 7, 7, 30, 40, None]
    assert answer["embedding"][3] == [3.0, 0.5, -1.0]
    assert answer["label"] == ["pin 0", "pin 1", "pin 2", "pin 3", "pin 4", None]


def test_materialize_gives_what_feasts_own_engine_gives(tmp_path: Path) -> None:
    stores = []
    for name, engine in (("ours", {"type": ENGINE, "chunk_rows": 3}), ("feast", "local")):
        folder = tmp_path / name
        view = vector_view(folder)
        write_vectors(folder, vectors(10), "a")
        write_vectors(folder, vectors(4, hours(3), first=8), "b")
        store = open_repo(folder, [view], engine=engine, online="sqlite")
        store.materialize(hours(-1), hours(4))
        stores.append(store)
    ours, feast = (read(store, "vectors", pins(14)) for store in stores)
    assert ours == feast


def test_materialize_takes_rows_of_the_closed_interval_only(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    for at in range(4):
        write_vectors(tmp_path, vectors(1, hours(at), first=at), str(at))
    store = open_repo(tmp_path, [view])
    store.materialize(hours(1), hours(2))
    assert read(store, "vectors", pins(4))["count"] == [None, 10, 20, None]


def test_materialize_takes_several_join_keys_and_mapped_names(tmp_path: Path, online: str) -> None:
    view = mapped_view(tmp_path)
    write_mapped(
        tmp_path, [(1, "Bern", 5, START), (1, "Basel", 6, START), (1, "Bern", 7, hours(1)), (2, "Bern", 8, START)]
    )
    store = open_repo(tmp_path, [view], online=online)
    store.materialize(START, END)
    asked = [{"pin_id": 1, "city": "Bern"}, {"pin_id": 1, "city": "Basel"}, {"pin_id": 2, "city": "Basel"}]
    assert read(store, "mapped", asked)["visits"] == [7, 6, None]


def test_materialize_takes_the_one_row_of_an_entityless_view(tmp_path: Path) -> None:
    view = entityless_view(tmp_path)
    types = {"total": pa.int64(), "extra": pa.struct({"k": pa.string()}), "since": pa.timestamp("us", tz="UTC")}
    rows = [{"total": at, "extra": {"k": str(at)}, "since": hours(at), "event_timestamp": hours(at)} for at in (1, 2)]
    write(tmp_path, "everyone", types, rows)
    store = open_repo(tmp_path, [view])
    store.materialize(START, END)
    answer = read(store, "everyone", [{"pin_id": 1}])
    assert answer["total"] == [2]
    assert answer["extra"] == [{"k": "2"}]
    assert answer["since"] == [hours(2)]


def test_materialize_never_replaces_a_newer_push(tmp_path: Path) -> None:
    view = pushed_view(tmp_path)
    write(
        tmp_path,
        "counts",
        {"pin_id": pa.int64(), "count": pa.int64()},
        [{"pin_id": 1, "count": 1}, {"pin_id": 2, "count": 2}],
    )
    store = open_repo(tmp_path, [view])
    pushed = {"pin_id": [1], "count": [100], "event_timestamp": [hours(5)], "created_timestamp": [hours(5)]}
    store.push("pushed", pd.DataFrame(pushed))
    store.materialize(START, hours(1))
    assert read(store, "counts", [{"pin_id": 1}, {"pin_id": 2}])["count"] == [100, 2]


def test_materialize_works_on_any_offline_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Feast's DuckDB store takes paths from the working directory.
    monkeypatch.chdir(tmp_path)
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(5), "a")
    write_vectors(tmp_path, vectors(2, hours(2), first=4), "b")
    store = open_repo(tmp_path, [view], offline="duckdb")
    store.materialize(START, END)
    assert read(store, "vectors", pins(7))["count"] == [0, 10, 20, 30, 40, 50, None]


def test_materialize_takes_lists_of_any_layout(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    types = {
        "pin_id": pa.int32(),
        "embedding": pa.list_(pa.float64(), 3),
        "count": pa.int32(),
        "label": pa.large_string(),
    }
    write(tmp_path, "vectors", types, vectors(3))
    store = open_repo(tmp_path, [view])
    store.materialize(START, END)
    assert read(store, "vectors", pins(3))["embedding"] == [[0.0, 0.5, -1.0], [1.0, 0.5, -1.0], [2.0, 0.5, -1.0]]


def test_materialize_incremental_goes_on_from_the_last_interval(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(3), "a")
    write_vectors(tmp_path, vectors(1, hours(5), first=3), "b")
    store = open_repo(tmp_path, [view])
    store.materialize(START, hours(1))
    store.materialize_incremental(hours(6))
    assert read(store, "vectors", pins(4))["count"] == [0, 10, 20, 30]
    assert store.get_feature_view("vectors").materialization_intervals == [(START, hours(1)), (hours(1), hours(6))]


def test_materialize_incremental_starts_a_ttl_ago_when_it_is_the_first(tmp_path: Path) -> None:
    view = vector_view(tmp_path, ttl=timedelta(hours=2))
    now = _utc_now()
    write_vectors(tmp_path, [*vectors(1, now - timedelta(hours=3)), *vectors(1, now - timedelta(hours=1), first=1)])
    store = open_repo(tmp_path, [view])
    store.materialize_incremental(now)
    assert read(store, "vectors", pins(2))["count"] == [None, 10]


def test_chunks_are_bounded_whatever_the_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write_rows = ChunkWriter.write

    def watched(self: ChunkWriter, table: pa.Table) -> None:
        sizes.append(table.num_rows)
        write_rows(self, table)

    monkeypatch.setattr(ChunkWriter, "write", watched)
    view = vector_view(tmp_path)
    for file in range(3):
        write_vectors(tmp_path, vectors(9, first=9 * file), str(file))
    store = open_repo(tmp_path, [view], engine={"type": ENGINE, "chunk_rows": 5})
    store.materialize(START, END)
    assert sizes == [5, 5, 5, 5, 5, 2]


def test_progress_is_shown_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(5))
    open_repo(tmp_path, [view]).materialize(START, END)
    assert "5/5" in capsys.readouterr().err


def test_views_with_transformations_are_left_to_feasts_own_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubled(frame):  # type: ignore[no-untyped-def]  # Feast evaluates annotations without our imports.
        return frame.assign(twice=frame["pin_id"] * 2)

    # Feast's DuckDB store takes paths from the working directory, and hands a transformation keys and times alone.
    monkeypatch.chdir(tmp_path)
    view = BatchFeatureView(
        name="doubled",
        entities=[PIN],
        mode="pandas",
        udf=doubled,
        udf_string="doubled",
        schema=[Field(name="pin_id", dtype=Int64), Field(name="twice", dtype=Int64)],
        source=source(tmp_path, "doubled"),
        online=True,
        ttl=timedelta(0),
    )
    assert not is_plain(view)
    assert is_plain(vector_view(tmp_path))
    rows = [{"pin_id": 1, "count": 4}, {"pin_id": 2, "count": 5}]
    write(tmp_path, "doubled", {"pin_id": pa.int64(), "count": pa.int64()}, rows)
    store = open_repo(tmp_path, [view], offline="duckdb")
    store.materialize(START, END)
    assert read(store, "doubled", [{"pin_id": 1}, {"pin_id": 2}])["twice"] == [2, 4]


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    with pytest.raises(ValueError, match="chunk_row"):
        open_repo(tmp_path, [view], engine={"type": ENGINE, "chunk_row": 2})


@pytest.mark.parametrize("value", ["lots", "300"])
def test_memory_limit_that_is_no_size_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match=rf"memory_limit\n.*must be a size such as 512MB.*got '{value}'"):
        open_repo(tmp_path, [vector_view(tmp_path)], engine={"type": ENGINE, "memory_limit": value})


def test_memory_limit_that_is_too_low_is_named_with_the_view(tmp_path: Path) -> None:
    write_vectors(tmp_path, vectors(3))
    store = open_repo(tmp_path, [vector_view(tmp_path)], engine={"type": ENGINE, "memory_limit": "1KB"})
    expected = r"batch_engine.memory_limit must hold the keys and times of feature view vectors \(got 1KB"
    with pytest.raises(EngineMemoryError, match=expected):
        store.materialize(START, END)


def test_limits_of_the_offline_store_hold_for_the_engine(tmp_path: Path) -> None:
    write_vectors(tmp_path, vectors(3))
    offline = {"type": ASOF, "temp_directory": "scratch", "max_temp_directory_size": "1GB"}
    store = open_repo(tmp_path, [vector_view(tmp_path)], offline=offline)
    with pytest.raises(ValueError, match=r"offline_store.temp_directory must be a folder \(got .*scratch\); make it"):
        store.materialize(START, END)
    (tmp_path / "scratch").mkdir()
    store.materialize(START, END)
    assert read(store, "vectors", pins(3))["count"] == [0, 10, 20]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_historical_features_of_a_view_come_from_the_offline_store(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    write_vectors(tmp_path, vectors(2))
    store = open_repo(tmp_path, [view])
    asked = pd.DataFrame({"pin_id": [1, 5], "event_timestamp": [hours(1), hours(1)]})
    registered = store.get_feature_view("vectors")
    task = HistoricalRetrievalTask("engine", asked, registered, True, store.registry)
    job = engine_of(store).get_historical_features(store.registry, task)
    assert job.to_arrow()["vectors__count"].to_pylist() == [10, None]


def test_deleting_a_view_forgets_its_journal(tmp_path: Path) -> None:
    view = vector_view(tmp_path)
    store = open_repo(tmp_path, [view])
    journal = tmp_path / "data" / "materialize" / "engine.vectors.jsonl"
    journal.parent.mkdir()
    journal.write_text("{}\n")
    store.apply([], objects_to_delete=[view], partial=False)
    assert not journal.exists()


def engine_of(store: FeatureStore) -> Any:
    return store._get_provider().batch_engine


def test_a_vector_may_be_null_where_only_its_width_is_declared(tmp_path: Path) -> None:
    schema = [Field(name="pin_id", dtype=Int64), Field(name="look", dtype=Array(Float32), tags={"dim": "2"})]
    view = FeatureView(name="looks", entities=[PIN], schema=schema, source=source(tmp_path, "looks"))
    rows = [{"pin_id": 0, "look": [1.0, 2.0]}, {"pin_id": 1, "look": None}]
    write(tmp_path, "looks", {"pin_id": pa.int64(), "look": pa.list_(pa.float32())}, rows)
    store = open_repo(tmp_path, [view])
    store.materialize(START, END)
    assert read(store, "looks", pins(2))["look"] == [[1.0, 2.0], None]
