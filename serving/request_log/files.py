"""Files of the request log: visible only when whole, the Pins of an answer before the answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.request_log.layout import PINS, RESPONSES, file_name, partition
from serving.request_log.rows import LoggedAnswer

MOST_ROWS_IN_A_GROUP = 20_000


def write_answers(log: Path, answers: Sequence[LoggedAnswer], writer: str, number: int) -> int:
    """Write answers of one release and hour; safe to repeat under the same number.

    Returns:
        Bytes of both files.

    Raises:
        OSError: They cannot be written; no part of them is visible, but for Pins without an answer, which a repetition
            replaces.
    """
    first = answers[0]
    at, name = datetime.fromisoformat(f"{first.hour}:00:00+00:00"), file_name(first.release, writer, number)
    pins = _write((each.pins for each in answers), log / partition(PINS, at) / name)
    return pins + _write((each.response for each in answers), log / partition(RESPONSES, at) / name)


def _write(tables: Iterable[pa.Table], path: Path) -> int:
    # An answer without candidates, or without a user's row, lacks columns that others have.
    table = pa.concat_tables(tables, promote_options="permissive")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=MOST_ROWS_IN_A_GROUP)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    return size
