"""What a disk that is full and files that are damaged do to a request: a named error, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from feature_repo.stores.offline.abandoned import HeldFolder
from feature_repo.stores.offline.snapshots import SnapshotError
from feature_repo.stores.offline.write import new_file
from tests.feature_repo.stores.offline.repos import MOMENT, SHELF, START, hours, open_repo, sales_view
from tests.feature_repo.stores.offline.test_streams import files_of_at_most, names

NUM_ROWS = 300_000
ASKED = pa.table({"shelf_id": np.arange(5), "event_timestamp": pa.array([hours(1)] * 5, MOMENT)})


def filled(folder: Path, num_rows: int, **options: str | int) -> FeatureStore:
    """A repo with one file of keys in no order, all of one time, and a folder to spill to."""
    keys = np.random.default_rng(3).permutation(num_rows)
    moments = pa.array([START] * num_rows, MOMENT)
    (folder / "sales").mkdir(parents=True)
    (folder / "scratch").mkdir()
    columns = {"shelf_id": keys, "sold": keys, "event_timestamp": moments, "created_timestamp": moments}
    pq.write_table(pa.table(columns), file_of(folder))
    store = open_repo(folder, temp_directory="scratch", **options)
    store.apply([SHELF, sales_view("sales", entities=[SHELF])])
    return store


def file_of(folder: Path) -> Path:
    return folder / "sales" / "only.parquet"


@pytest.mark.parametrize("content", [b"", b"shelf_id,sold\n1,2\n" * 9], ids=["empty", "text"])
def test_file_that_is_no_parquet_is_named_with_the_view(tmp_path: Path, content: bytes) -> None:
    store = filled(tmp_path, 5)
    file_of(tmp_path).write_bytes(content)
    with pytest.raises(SnapshotError, match=r"feature view sales: .*only.parquet must be a whole parquet file"):
        store.get_historical_features(ASKED, ["sales:sold"]).to_arrow()


@pytest.mark.parametrize("column", ["shelf_id", "sold", "event_timestamp", "created_timestamp"])
def test_damaged_page_of_any_column_is_named_with_the_view(tmp_path: Path, column: str) -> None:
    store = filled(tmp_path, 20_000)
    path = file_of(tmp_path)
    chunk = pq.read_metadata(path).row_group(0).column(pq.read_schema(path).get_field_index(column))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"feature view sales.*only.parquet"):
        store.get_historical_features(ASKED, ["sales:sold"]).to_arrow()


def _aged(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_held_is_not(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    abandoned, spilled = tmp_path / f".out.parquet.{'0' * 32}.partial", tmp_path / "scratch" / "headwater-duckdb-dead"
    abandoned.write_bytes(b"half of a file")
    spilled.mkdir()
    (spilled / "block").write_bytes(b"spilled")
    with new_file(tmp_path / "other.parquet") as held:
        kept = HeldFolder("headwater-duckdb-", tmp_path / "scratch")
        for path in (abandoned, spilled, held, Path(kept.name)):
            _aged(path)
        assert store.get_historical_features(ASKED, ["sales:sold"]).to_parquet(tmp_path / "out.parquet") == 5
        assert (abandoned.exists(), spilled.exists()) == (False, False)
        assert (held.exists(), Path(kept.name).exists()) == (True, True)
        kept.cleanup()
    assert (names(tmp_path / "scratch"), held.exists()) == ([], False)


def test_query_whose_result_has_no_room_leaves_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 5)
    query = f"SELECT range AS shelf_id, now() AS event_timestamp FROM range({NUM_ROWS})"
    expected = r"temp_directory must have room for the result of a query .*scratch"
    with files_of_at_most(100_000), pytest.raises(OSError, match=expected):
        store.get_historical_features(query, ["sales:sold"])
    assert names(tmp_path / "scratch") == []


def test_query_of_a_file_that_is_not_there_is_shown(tmp_path: Path) -> None:
    query = "SELECT * FROM 'workspace/gone.parquet'"
    with pytest.raises(ValueError, match=r"entity_df must be a query .*workspace/gone.parquet"):
        filled(tmp_path, 5).get_historical_features(query, ["sales:sold"])


def test_query_that_fails_on_a_value_is_shown(tmp_path: Path) -> None:
    query = "SELECT 'a'::BIGINT AS shelf_id, now() AS event_timestamp"
    with pytest.raises(ValueError, match=r"entity_df must be a query .*Could not convert string 'a'"):
        filled(tmp_path, 5).get_historical_features(query, ["sales:sold"])


def test_spilling_without_room_names_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, NUM_ROWS, memory_limit="8MB", threads=1)
    everyone = pa.table({"shelf_id": np.arange(NUM_ROWS), "event_timestamp": pa.array([hours(1)] * NUM_ROWS, MOMENT)})
    job = store.get_historical_features(everyone, ["sales:sold"])
    with files_of_at_most(100_000), pytest.raises((OSError, MemoryError), match="temp_directory"):
        job.to_parquet(tmp_path / "out" / "joined.parquet")
    assert names(tmp_path / "scratch") == []
    assert not list(tmp_path.rglob("*joined*"))
