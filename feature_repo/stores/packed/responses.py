"""Feast's online response made from stored bytes: all columns of a view are parsed at once.

Source: protos/feast/serving/ServingService.proto of Feast 0.67, message `GetOnlineFeaturesResponse`.
Dims: N keys, R rows of the response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any, cast

from feast import FeatureView
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

from feature_repo.stores.packed.cells import IS_MISSING, IS_PRESENT, STATUSES, Cells, Codes
from feature_repo.stores.packed.times import encode_time
from feature_repo.stores.packed.varints import varint

_FEAST_STATUSES = bytes((FieldStatus.PRESENT, FieldStatus.NOT_FOUND, FieldStatus.OUTSIDE_MAX_AGE))
_RESULT, _VALUE, _STATUSES, _TIME = b"\x12", b"\x0a", b"\x12", b"\x1a"
"""Tags of a column in the response, and of what a column holds."""
assert len(_FEAST_STATUSES) == len(STATUSES)


def append_view(
    response: Any, view: FeatureView, names: Sequence[str], cells: Cells, codes: Codes, places: list[int]
) -> None:
    """Add a view's columns to a response.

    Args:
        names: Columns of the response, one per feature of `cells`.
        places: For each of R rows which of N keys it shows.
    """
    known = codes.tolist()
    moments = [b"" if code == IS_MISSING else encode_time(micros) for code, micros in _pairs(known, cells)]
    times = _repeated(_time_header, moments, places)
    absent = [place for place, code in enumerate(known) if code != IS_PRESENT]
    statuses = bytes([_FEAST_STATUSES[code] for code in known])
    # Most features of a view have the same statuses.
    ends: dict[bytes, tuple[bytes, int]] = {}
    columns, present = [], 0
    for values in cells.values:
        shown, own = _shown(values, absent, statuses)
        if own not in ends:
            of_rows = bytes([own[place] for place in places])
            ends[own] = (_field(_STATUSES, of_rows) + times, of_rows.count(FieldStatus.PRESENT))
        end, num_present = ends[own]
        columns.append(_field(_RESULT, _repeated(_value_header, shown, places) + end))
        present += num_present
    response.metadata.feature_names.val.extend(names)
    response.MergeFromString(b"".join(columns))
    _count(view, present, len(names) * len(places) - present)


def _shown(values: Sequence[bytes | None], absent: list[int], statuses: bytes) -> tuple[Sequence[bytes], bytes]:
    """Value and status of each key; a row that is present but lacks this feature has none."""
    held = list(values)
    for place in absent:
        held[place] = b""
    if None not in held:
        return cast(list[bytes], held), statuses
    own = bytes(
        [FieldStatus.NOT_FOUND if value is None else status for value, status in zip(held, statuses, strict=True)]
    )
    return [value or b"" for value in held], own


def append_version(response: Any, view: FeatureView) -> None:
    """Add the Feast snapshot that was read, once per view."""
    name = view.projection.name_alias or view.projection.name
    if name not in [known.name for known in response.metadata.feature_view_metadata]:
        known = response.metadata.feature_view_metadata.add()
        known.name = name
        known.version = getattr(view, "current_version_number", 0) or 0


def _pairs(codes: list[int], cells: Cells) -> zip[tuple[int, int]]:
    return zip(codes, cells.event_micros.tolist(), strict=True)


def _repeated(header: Callable[[int], bytes], messages: Sequence[bytes], places: list[int]) -> bytes:
    """Messages of R rows as a repeated field."""
    if len(places) == 1:
        message = messages[places[0]]
        return header(len(message)) + message
    expanded = [messages[place] for place in places]
    return b"".join(chain.from_iterable(zip(map(header, map(len, expanded)), expanded, strict=True)))


def _field(tag: bytes, content: bytes) -> bytes:
    return _header(tag, len(content)) + content


@lru_cache(maxsize=4096)
def _header(tag: bytes, length: int) -> bytes:
    return tag + varint(length)


@lru_cache(maxsize=4096)
def _value_header(length: int) -> bytes:
    return _VALUE + varint(length)


@lru_cache(maxsize=64)
def _time_header(length: int) -> bytes:
    return _TIME + varint(length)


def _count(view: FeatureView, num_present: int, num_absent: int) -> None:
    """Feast's own counters; they are off unless its server was started with metrics."""
    track = _tracker()
    if track is not None:
        track(view.name, num_present, num_absent)


@cache
def _tracker() -> Callable[[str, int, int], None] | None:
    try:
        from feast.metrics import track_feature_statuses
    except ImportError:
        return None
    found: Callable[[str, int, int], None] = track_feature_statuses
    return found
