"""Small files become one a day: same rows for every reader, at every moment, also after a kill."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.stores.offline import merging
from feature_repo.stores.offline.merging import merge_appended
from feature_repo.stores.offline.snapshots import SnapshotError, parquet_files

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def write(folder: Path, name: str, keys: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    moments = pa.repeat(pa.scalar(NOON, pa.timestamp("us", tz="UTC")), len(keys))
    pq.write_table(pa.table({"user_id": keys, "event_timestamp": moments}), folder / f"{name}.parquet")


def read(folder: Path) -> list[int]:
    """Keys that a reader finds."""
    return sorted(key for file in parquet_files(folder) for key in pq.read_table(file)["user_id"].to_pylist())


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.parquet"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A view with a snapshot and two pushes."""
    folder = tmp_path / "view"
    write(folder, "date=2024-01-01", [1, 2])
    write(folder, "appended-a", [3])
    write(folder, "appended-b", [4, 5])
    return folder


def test_merge_keeps_every_row_once_and_deletes_with_the_next_one(folder: Path) -> None:
    assert merge_appended(folder, "2024-01-02") == 2
    assert read(folder) == [1, 2, 3, 4, 5]
    assert [file.name for file in parquet_files(folder)] == [
        "appended_merged-2024-01-02.parquet",
        "date=2024-01-01.parquet",
    ]
    # Who listed the small ones before can still read them.
    assert "appended-a.parquet" in names(folder)
    write(folder, "appended-c", [6])
    assert merge_appended(folder, "2024-01-03") == 1
    assert read(folder) == [1, 2, 3, 4, 5, 6]
    assert names(folder) == [
        "appended-c.parquet",
        "appended_merged-2024-01-02.parquet",
        "appended_merged-2024-01-03.parquet",
        "date=2024-01-01.parquet",
    ]


def test_merge_repeated_for_the_same_day_takes_in_what_came_since(folder: Path) -> None:
    merge_appended(folder, "2024-01-02")
    assert merge_appended(folder, "2024-01-02") == 0
    write(folder, "appended-c", [6])
    assert merge_appended(folder, "2024-01-02") == 1
    assert read(folder) == [1, 2, 3, 4, 5, 6]
    assert merge_appended(folder, "2024-01-03") == 0
    assert names(folder) == ["appended_merged-2024-01-02.parquet", "date=2024-01-01.parquet"]


def test_merge_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    assert merge_appended(tmp_path / "absent", "2024-01-02") == 0
    write(tmp_path / "view", "date=2024-01-01", [1])
    assert merge_appended(tmp_path / "view", "2024-01-02") == 0
    assert [file.name for file in (tmp_path / "view").iterdir()] == ["date=2024-01-01.parquet"]


@pytest.mark.parametrize("name", ["write_tables", "write_atomically"])
def test_merge_that_is_killed_shows_no_row_never_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(merging, name, kill)
        with pytest.raises(Killed):
            merge_appended(folder, "2024-01-02")
    # Between the merged file and the list of those that it supersedes a reader finds rows twice, which are the same.
    assert set(read(folder)) == {1, 2, 3, 4, 5}
    assert merge_appended(folder, "2024-01-02") == 2
    assert read(folder) == [1, 2, 3, 4, 5]


def test_reader_that_listed_before_a_merge_still_reads(folder: Path) -> None:
    listed = list(parquet_files(folder))
    merge_appended(folder, "2024-01-02")
    assert sorted(key for file in listed for key in pq.read_table(file)["user_id"].to_pylist()) == [1, 2, 3, 4, 5]


def test_push_that_is_repeated_after_its_merge_shows_the_same_rows_once(folder: Path) -> None:
    merge_appended(folder, "2024-01-02")
    shutil.copyfile(folder / "appended-a.parquet", folder / "copy")
    (folder / "copy").replace(folder / "appended-a.parquet")
    assert read(folder) == [1, 2, 3, 4, 5]
    merge_appended(folder, "2024-01-03")
    assert read(folder) == [1, 2, 3, 4, 5]


def test_damaged_file_is_named_and_nothing_changes(folder: Path) -> None:
    (folder / "appended-b.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(SnapshotError, match=r"appended-b\.parquet must be a whole parquet file"):
        merge_appended(folder, "2024-01-02")
    assert names(folder) == ["appended-a.parquet", "appended-b.parquet", "date=2024-01-01.parquet"]
