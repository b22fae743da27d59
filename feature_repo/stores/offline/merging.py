"""Files of single pushes become one file a day, while joins go on reading and pushes go on writing.

First the merged file appears, with the names of what is in it: rows that a reader then finds twice are the same rows.
Then the small files are told to be superseded, and no reader lists them any more; whoever listed them before may read
them until the next day's merge deletes them. So a kill at any moment loses nothing, and the same merge goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import write_atomically
from feature_repo.stores.offline.footers import naming
from feature_repo.stores.offline.snapshots import SUPERSEDED_FILE, superseded
from feature_repo.stores.offline.write import APPENDED, write_tables

MERGED = "appended_merged"
"""Beginning of the names of merged files; it sorts before snapshots and is none of `APPENDED`."""
_NAMES = b"headwater_merged"
_COPY_ROWS = 1 << 16


def merge_appended(folder: Path, name: str) -> int:
    """Merge the files that were appended to a folder since the last merge into one; the caller holds off pushes.

    What an earlier merge under another name superseded is deleted.

    Args:
        folder: Files of a source; one that does not exist has none.
        name: Of the merged file, such as a date: the same name again goes on with the same file.

    Returns:
        Number of files that were merged.

    Raises:
        SnapshotError: A file is damaged; nothing changed.
        OSError: The disk is full or the folder cannot be written.
    """
    gone, by = superseded(folder)
    if gone and by != name:
        for each in gone:
            (folder / each).unlink(missing_ok=True)
        _supersede(folder, name, [])
        gone = frozenset()
    target = folder / f"{MERGED}-{name}.parquet"
    known = _names(target)
    waiting = sorted(file for file in folder.glob(f"{APPENDED}*.parquet") if file.name not in gone)
    new = [file for file in waiting if file.name not in known]
    if new:
        _write(target, new, [*known, *(file.name for file in new)])
    if waiting:
        _supersede(folder, name, [*gone, *(file.name for file in waiting)])
    return len(waiting)


def _write(target: Path, new: Sequence[Path], names: Sequence[str]) -> None:
    """The merged file as it was, and the rows of new ones, in one step."""
    files = [*([target] if target.is_file() else []), *new]
    schema = _schema(files[0]).with_metadata({_NAMES: json.dumps(names).encode()})
    write_tables(target, schema, (rows.cast(schema) for file in files for rows in _rows(file)))


def _schema(file: Path) -> pa.Schema:
    with naming(file, "pushed rows"):
        return pa.schema([field.with_nullable(True).remove_metadata() for field in pq.read_schema(file)])


def _rows(file: Path) -> Iterator[pa.Table]:
    with naming(file, "pushed rows"), pq.ParquetFile(file) as open_file:
        for batch in open_file.iter_batches(_COPY_ROWS):
            yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def _names(target: Path) -> list[str]:
    """Names of the files that are in a merged one."""
    if not target.is_file():
        return []
    with naming(target, "merged rows"):
        found: list[str] = json.loads((pq.read_metadata(target).metadata or {}).get(_NAMES, b"[]"))
    return found


def _supersede(folder: Path, name: str, files: Sequence[str]) -> None:
    write_atomically(folder / SUPERSEDED_FILE, json.dumps({"by": name, "files": sorted(files)}) + "\n")
