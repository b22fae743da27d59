"""From an answer to its rows in the request log: the values that the models read, and nothing that they did not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import join_key
from feature_repo.encoding import InputSpec
from feature_repo.request_log.layout import (
    ANSWER_ID,
    ANSWERED,
    AS_OF,
    EVENT_TIMESTAMP_PREFIX,
    POSITION,
    REQUEST_ID,
    SAMPLING_RATE,
    STATUS_PREFIX,
)
from serving.monitoring.served import Served

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

_MOMENT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedAnswer:
    """Rows of one answer; small, for it holds the answered Pins alone."""

    release: str
    hour: str
    """UTC hour of the answer, `2026-01-10T07`."""
    response: pa.Table
    """One row."""
    pins: pa.Table
    """A row per answered Pin."""


def logged(served: Served, sampling_rate: float) -> LoggedAnswer:
    """The rows of an answer.

    Args:
        sampling_rate: Share of the answers that is logged.
    """
    answer_id = uuid.uuid4().hex
    return LoggedAnswer(
        release=served.release.manifest.release,
        hour=f"{served.at:%Y-%m-%dT%H}",
        response=_response(served, sampling_rate, answer_id),
        pins=_pins(served, answer_id),
    )


def _response(served: Served, sampling_rate: float, answer_id: str) -> pa.Table:
    assignment, encoders = served.assignment, served.release.manifest.encoders
    columns: dict[str, Any] = {
        ANSWER_ID: _texts([answer_id]),
        REQUEST_ID: _texts([served.request_id]),
        ANSWERED: pa.array([served.at], _MOMENT),
        AS_OF: pa.array([served.as_of], _MOMENT),
        "route": _texts([served.route]),
        "user_id": pa.array([served.user_id], pa.int64()),
        "surface": _texts([served.surface]),
        "context": _texts([json.dumps(dict(served.context), default=str) if served.context else None]),
        "release": _texts([served.release.manifest.release]),
        "embeddings": pa.array([served.release.embeddings], pa.list_(pa.string())),
        "split": _texts([assignment.split if assignment else None]),
        "arm": _texts([assignment.arm if assignment else None]),
        "source": _texts([served.source]),
        "degraded": _texts([served.degraded or None]),
        "num_candidates": pa.array([served.num_candidates], pa.int32()),
        SAMPLING_RATE: pa.array([sampling_rate], pa.float64()),
    }
    if served.user is not None:
        read = _columns((encoders.query_user, encoders.ranking_user), "user")
        columns |= _read(served.user, read, pa.array([0], pa.int64()))
    return pa.table(columns)


def _pins(served: Served, answer_id: str) -> pa.Table:
    count = len(served.pin_ids)
    columns: dict[str, Any] = {
        ANSWER_ID: _texts([answer_id] * count),
        POSITION: pa.array(range(1, count + 1), pa.int32()),
        "pin_id": pa.array(served.pin_ids, pa.int64()),
        "score": _numbers(served.scores, count),
        "pctr": _numbers(served.pctr, count),
        "pcvr": _numbers(served.pcvr, count),
    }
    if served.evidence is not None and count:
        read = _columns((served.release.manifest.encoders.ranking_pin,), "pin")
        columns |= _read(served.evidence.pins, read, pa.array(served.evidence.rows[:count]))
    return pa.table(columns)


def _columns(specs: Iterable[InputSpec], entity: str) -> list[str]:
    """Columns that the models read, in order, without the key itself."""
    found = dict.fromkeys(column for spec in specs for column in spec.columns())
    return [column for column in found if column != join_key(entity)]


def _read(read: OnlineRead, columns: list[str], rows: pa.Array) -> dict[str, Any]:
    """Values, statuses and event timestamps at some positions of a read."""
    taken = read.features.select(columns).take(rows)
    found = dict(zip(taken.column_names, taken.columns, strict=True))
    for view, codes in read.statuses.items():
        found[STATUS_PREFIX + view] = pc.cast(codes.take(rows), pa.string())
        found[EVENT_TIMESTAMP_PREFIX + view] = read.event_timestamps[view].take(rows)
    return found


def _texts(values: list[str | None] | list[str]) -> pa.Array:
    return pa.array(values, pa.string())


def _numbers(values: list[float] | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.float64()) if values is None else pa.array(values, pa.float64())
