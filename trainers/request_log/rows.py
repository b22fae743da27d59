"""Answered Pins of one release with everything that was logged of them.

Dims: N answered Pins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contract import EVENT_TIMESTAMP
from feature_repo.request_log.layout import ANSWER_ID, AS_OF, LoggedFile, logged_files


class RequestLogError(ValueError):
    """A request log that cannot be read; the text says what is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedPins:
    """Answered Pins of one release."""

    release: str
    num_answers: int
    """Answers that they are of, those without a Pin left out."""
    num_degraded: int
    """Answers that were made without what a whole one reads; left out."""
    rows: pa.Table
    """A row [N] per Pin: what was logged of it and of its answer, with `event_timestamp`, the answer's `as_of`."""
    first: npt.NDArray[np.int64]
    """Positions of each answer's first Pin, where values of the answer are counted once."""


def releases_of(log: Path) -> dict[str, list[LoggedFile]]:
    """Files of the log by release.

    Raises:
        RequestLogError: There are none.
    """
    found: dict[str, list[LoggedFile]] = {}
    for file in logged_files(log):
        found.setdefault(file.release, []).append(file)
    if not found:
        raise RequestLogError(
            f"{log} must hold logged answers (got none); serve with HEADWATER_REQUEST_LOG=1, or give another --log"
        )
    return found


def read_pins(release: str, files: Sequence[LoggedFile], most_answers: int) -> LoggedPins:
    """The Pins of up to `most_answers` whole answers, taken evenly from all of the release.

    Raises:
        RequestLogError: A file is no parquet of ours.
    """
    answers = _read([file.responses for file in files])
    pins = _read([file.pins for file in files])
    whole = pc.is_null(answers["degraded"])
    num_degraded = answers.num_rows - int(pc.sum(whole).as_py() or 0)
    answers = answers.filter(whole)
    answers = answers.filter(pc.is_in(answers[ANSWER_ID], value_set=pc.unique(pins[ANSWER_ID])))
    step = max(1, -(-answers.num_rows // most_answers))
    answers = answers.take(pa.array(np.arange(0, answers.num_rows, step)))
    place = pc.index_in(pins[ANSWER_ID], value_set=pc.unique(answers[ANSWER_ID]))
    pins = pins.filter(pc.is_valid(place))
    place = pc.drop_null(place).combine_chunks() if isinstance(place, pa.ChunkedArray) else pc.drop_null(place)
    joined = answers.take(place)
    columns = {name: joined[name] for name in joined.column_names if name != AS_OF}
    columns |= {name: pins[name] for name in pins.column_names if name != ANSWER_ID}
    columns[EVENT_TIMESTAMP] = joined[AS_OF]
    _, first = np.unique(np.asarray(place), return_index=True)
    return LoggedPins(
        release=release,
        num_answers=len(first),
        num_degraded=num_degraded,
        rows=pa.table(columns),
        first=first.astype(np.int64),
    )


def _read(paths: Sequence[Path]) -> pa.Table:
    try:
        tables = [pq.read_table(path, partitioning=None) for path in paths]
    except (OSError, pa.ArrowInvalid) as error:
        raise RequestLogError(f"files of the request log must be whole parquet (got: {error}); remove it") from error
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
