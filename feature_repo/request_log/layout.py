"""Names and places of the request log. Servers write it, `headwater impressions` and `headwater skew` read it.

    request_log/responses/date=YYYY-MM-DD/hour=HH/<release>-<writer>-<number>.parquet    a row per answer
    request_log/pins/date=YYYY-MM-DD/hour=HH/<release>-<writer>-<number>.parquet         a row per answered Pin

Date and hour are those of the answer, UTC. A file holds answers of one release, whose features are its columns. The
Pins of an answer are there before the answer is. A file whose name begins with a dot is not whole and no part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

REQUEST_LOG: Final = "request_log"
"""Folder of a run with its request log."""
RESPONSES: Final = "responses"
PINS: Final = "pins"

ANSWER_ID: Final = "answer_id"
"""Of one answer, made by the server; in both tables."""
REQUEST_ID: Final = "request_id"
"""As the client has it, who may have used it before."""
ANSWERED: Final = "answered_timestamp"
"""When the answer was made, on the wall clock."""
AS_OF: Final = "as_of"
"""Moment against which features aged: that at which an offline join finds what was served."""
MOMENT: Final = "moment"
"""Key of `context`, a JSON object: the moment of the impression, where the request gave another than `as_of`."""
POSITION: Final = "position"
"""Place of a Pin in its answer, 1 for the first."""
SAMPLING_RATE: Final = "sampling_rate"
"""Share of the answers that was logged."""
STATUS_PREFIX: Final = "status__"
"""Column `status__<view>`: `present`, `missing` or `outside_max_age`."""
EVENT_TIMESTAMP_PREFIX: Final = "event_timestamp__"
"""Column `event_timestamp__<view>`: of the row that the online store held; null where missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedFile:
    """One file of answers and the file of their Pins."""

    release: str
    responses: Path
    pins: Path


def partition(table: str, at: datetime) -> Path:
    """Folder, relative to the log's, of what was answered at a moment."""
    moment = at.astimezone(UTC)
    return Path(table, f"date={moment:%Y-%m-%d}", f"hour={moment:%H}")


def logged_files(log: Path) -> Iterator[LoggedFile]:
    """Every whole file of answers, oldest hour first."""
    for responses in sorted((log / RESPONSES).glob("date=*/hour=*/[!.]*.parquet")):
        pins = log / PINS / responses.relative_to(log / RESPONSES)
        yield LoggedFile(release=release_of(responses), responses=responses, pins=pins)


def file_name(release: str, writer: str, number: int) -> str:
    """Name of a file of one release, unlike that of any other writer.

    Args:
        writer: Letters and digits that no other process has.
    """
    return f"{release}-{writer}-{number:06d}.parquet"


def release_of(path: Path) -> str:
    """Release whose answers a file holds."""
    return path.stem.rsplit("-", 2)[0]
