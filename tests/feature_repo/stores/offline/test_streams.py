"""Results as streams and files, limits of the store, and what is left when something fails."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Array, Float32, Int64

from feature_repo.stores.offline import block_join, pages
from feature_repo.stores.offline.asof_join import EngineMemoryError
from feature_repo.stores.offline.asof_store import AsofOfflineStoreConfig
from feature_repo.stores.offline.snapshots import SnapshotError
from tests.feature_repo.stores.offline.repos import SHELF, entities, hours, joined, open_repo, sales_view, write_rows

FEATURES = {"sold": Int64, "vector": Array(Float32)}
NAMES = ["sales:sold", "sales:vector"]
ROWS = entities([{"shelf_id": number % 60, "at": 24 * (number % 5) + 2} for number in range(5000)])


def vector(day: int, shelf: int) -> list[float]:
    return [float(day), float(shelf), 0.5]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """Four days of 50 shelves in row groups of 20; pages and blocks so small that all have several."""
    monkeypatch.setattr(pages, "PAGE_ROWS", 8)
    monkeypatch.setattr("feature_repo.stores.offline.gather.PAGE_ROWS", 8)
    monkeypatch.setattr(block_join, "MAX_BLOCK_ROWS", 700)
    monkeypatch.setattr(block_join, "_MIN_BLOCK_ROWS", 1)
    return filled(tmp_path)


def filled(folder: Path, **options: Any) -> FeatureStore:
    for day in range(4):
        rows = [{"shelf_id": n, "sold": 100 * day + n, "vector": vector(day, n), "at": 24 * day} for n in range(50)]
        path = write_rows(folder / "sales" / f"{day}.parquet", rows, {"vector": pa.list_(pa.float32())})
        pq.write_table(pq.read_table(path), path, row_group_size=20)
    store = open_repo(folder, **options)
    store.apply([SHELF, sales_view("sales", [SHELF], FEATURES)])
    return store


def expected() -> tuple[list[int | None], list[list[float] | None]]:
    pairs = [(number % 60, number % 5) for number in range(5000)]
    days = [(shelf, min(day, 3)) for shelf, day in pairs]
    sold = [100 * day + shelf if shelf < 50 else None for shelf, day in days]
    return sold, [vector(day, shelf) if shelf < 50 else None for shelf, day in days]


def test_stream_holds_the_rows_of_the_whole_result_in_batches_of_the_asked_size(store: FeatureStore) -> None:
    job = store.get_historical_features(ROWS, NAMES)
    batches = list(job.to_record_batches(900))
    assert [batch.num_rows for batch in batches] == [900, 900, 900, 900, 900, 500]
    table = pa.Table.from_batches(batches)
    assert (table["sold"].to_pylist(), table["vector"].to_pylist()) == expected()
    assert table.equals(job.to_arrow())


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("kind", ["table", "file"])
def test_stream_goes_on_from_any_row(tmp_path: Path, store: FeatureStore, kind: str, cache_mb: int) -> None:
    store.config.offline_store.cache_mb = cache_mb
    pq.write_table(ROWS, tmp_path / "rows.parquet", row_group_size=1100)
    rows = ROWS if kind == "table" else tmp_path / "rows.parquet"
    job = store.get_historical_features(rows, ["sales:sold"])
    for first in (0, 1, 1100, 2345, 4999, 5000, 6000):
        assert job.to_record_batches(400, first_row=first).read_all()["sold"].to_pylist() == expected()[0][first:]


def test_stream_asked_for_no_rows_or_from_before_the_first_is_refused(store: FeatureStore) -> None:
    job = store.get_historical_features(ROWS, NAMES)
    with pytest.raises(ValueError, match=r"batch_rows must be at least 1 \(got 0\)"):
        job.to_record_batches(0)
    with pytest.raises(ValueError, match=r"first_row must be at least 0 \(got -1\)"):
        job.to_record_batches(first_row=-1)


def test_result_goes_from_file_to_file(tmp_path: Path, store: FeatureStore) -> None:
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    job = store.get_historical_features(str(tmp_path / "rows.parquet"), NAMES, full_feature_names=True)
    assert job.to_parquet(tmp_path / "out" / "joined.parquet") == 5000
    written = pq.read_table(tmp_path / "out" / "joined.parquet")
    assert (written["sales__sold"].to_pylist(), written["sales__vector"].to_pylist()) == expected()
    assert names(tmp_path / "out") == ["joined.parquet"]
    with pytest.raises(FileExistsError, match="pass allow_overwrite=True"):
        job.to_parquet(tmp_path / "out" / "joined.parquet")
    assert job.to_parquet(tmp_path / "out" / "joined.parquet", allow_overwrite=True) == 5000


def test_dataset_is_saved_in_a_folder_that_is_there_when_asked(tmp_path: Path, store: FeatureStore) -> None:
    (tmp_path / "saved").mkdir()
    job = store.get_historical_features(ROWS.slice(0, 3), NAMES)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(SavedDatasetFileStorage(path="saved"))
    job.persist(SavedDatasetFileStorage(path="saved"), allow_overwrite=True)
    job.persist(SavedDatasetFileStorage(path="saved"), allow_overwrite=True)
    assert pq.read_table(tmp_path / "saved")["sold"].to_pylist() == expected()[0][:3]
    write_rows(tmp_path / "saved" / "other.parquet", [{"sold": 1, "at": 1}])
    with pytest.raises(ValueError, match=r"hold no other parquet files \(got \['other.parquet'\]"):
        job.persist(SavedDatasetFileStorage(path="saved"), allow_overwrite=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Writes beyond `num_bytes` of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_file_that_was_there(tmp_path: Path, store: FeatureStore) -> None:
    target = tmp_path / "out" / "joined.parquet"
    job = store.get_historical_features(ROWS, NAMES)
    store.get_historical_features(ROWS.slice(0, 2), NAMES).to_parquet(target)
    with files_of_at_most(10_000), pytest.raises(OSError, match=r"joined.parquet must be written whole .*nothing was"):
        job.to_parquet(target, allow_overwrite=True)
    assert pq.read_table(target)["sold"].to_pylist() == expected()[0][:2]
    assert names(tmp_path / "out") == ["joined.parquet"]


def pull(store: FeatureStore, *, latest: bool, start: float, end: float) -> Any:
    offline = store.provider.offline_store
    method = offline.pull_latest_from_table_or_query if latest else offline.pull_all_from_table_or_query
    batch_source = store.get_feature_view("sales").batch_source
    times = ("event_timestamp", "created_timestamp", hours(start), hours(end))
    return method(store.config, batch_source, ["shelf_id"], ["sold", "vector"], *times)


@pytest.mark.parametrize("latest", [True, False])
def test_pulled_rows_come_in_the_order_of_the_files_from_any_row(store: FeatureStore, latest: bool) -> None:
    job = pull(store, latest=latest, start=24, end=48)
    first = [] if latest else [100 + n for n in range(50)]
    sold = [*first, *(200 + n for n in range(50))]
    for row in (0, 1, 17, len(sold)):
        batches = list(job.to_record_batches(30, first_row=row))
        assert [value for batch in batches for value in batch["sold"].to_pylist()] == sold[row:]
        assert all(batch.num_rows == 30 for batch in batches[:-1])
    assert job.to_arrow()["vector"].to_pylist()[-1] == vector(2, 49)
    assert job.to_arrow().column_names == ["shelf_id", "sold", "vector", "event_timestamp", "created_timestamp"]


def test_pulled_interval_without_rows_has_the_columns(store: FeatureStore) -> None:
    job = pull(store, latest=True, start=1000, end=1001)
    assert job.to_record_batches().read_all().schema.field("vector").type == pa.list_(pa.float32())


def test_pull_reads_each_page_once(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    original = pages.read_pages

    def counted(snapshots: Any, group: Any, columns: Any) -> Iterator[pa.Table]:
        read.append((group.file, group.group))
        return original(snapshots, group, columns)

    monkeypatch.setattr(pages, "read_pages", counted)
    pull(store, latest=False, start=24, end=48).to_record_batches(7).read_all()
    assert read == [(file, group) for file in (1, 2) for group in (0, 1, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": "lots"}, r"memory_limit\n.*must be a size such as 512MB.*got 'lots'"),
        ({"threads": 0}, r"threads\n.*greater than or equal to 1"),
        ({"block_mb": 0}, r"block_mb\n.*greater than or equal to 1"),
        ({"memory": "1GB"}, r"memory\n.*not permitted"),
    ],
)
def test_options_of_the_store_are_checked_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AsofOfflineStoreConfig(**options)


def test_temp_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path, temp_directory="scratch")
    with pytest.raises(ValueError, match=r"temp_directory must be a folder \(got .*scratch\)"):
        joined(store, ROWS)
    (tmp_path / "scratch").mkdir()
    assert joined(store, ROWS) == expected()[0]
    assert names(tmp_path / "scratch") == []


def test_memory_limit_that_is_too_low_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path, memory_limit="1KB")
    with pytest.raises(EngineMemoryError, match=r"memory_limit must hold .*got 1KB.*raise memory_limit"):
        joined(store, ROWS)


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)


def drop_vector(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["vector"]), path)


def drop_key(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["shelf_id"]), path)


def spell_times(path: Path) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index("event_timestamp")
    pq.write_table(table.set_column(place, "event_timestamp", table["event_timestamp"].cast(pa.string())), path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage_end, r"feature view sales: .*2.parquet must be a whole parquet file .*restore it, or delete it"),
        (drop_vector, r"feature view sales: .*2.parquet must hold the declared columns \(lacks \['vector'\]\)"),
        (drop_key, r"feature view sales must have columns .*2.parquet \(lacks \['shelf_id'\]\)"),
        (spell_times, r"feature view sales: event_timestamp must hold timestamps \(got VARCHAR\)"),
    ],
)
def test_file_that_cannot_be_used_is_named(store: FeatureStore, tmp_path: Path, harm: Any, message: str) -> None:
    harm(tmp_path / "sales" / "2.parquet")
    with pytest.raises(SnapshotError, match=message):
        store.get_historical_features(ROWS, NAMES).to_arrow()
    target = tmp_path / "out.parquet"
    with pytest.raises(SnapshotError, match=message):
        store.get_historical_features(ROWS, NAMES).to_parquet(target)
    assert not target.exists()


def test_file_with_damaged_pages_is_no_result(store: FeatureStore, tmp_path: Path) -> None:
    damage_pages(tmp_path / "sales" / "2.parquet")
    with pytest.raises(Exception, match=r"2\.parquet"):
        store.get_historical_features(ROWS, NAMES).to_arrow()


def test_stream_that_is_given_up_does_not_wait_for_its_threads(store: FeatureStore) -> None:
    stream = [store.get_historical_features(ROWS, NAMES).to_record_batches(900)]
    stream[0].read_next_batch()
    may_go, is_gone = threading.Event(), threading.Event()

    def give_up() -> None:
        may_go.wait()
        stream.clear()
        is_gone.set()

    collector = threading.Thread(target=give_up, daemon=True)
    collector.start()
    # Python holds this lock while a thread starts, which is where the garbage collector may meet the stream.
    with threading._shutdown_locks_lock:  # type: ignore[attr-defined]
        may_go.set()
        assert is_gone.wait(5)
    collector.join()
