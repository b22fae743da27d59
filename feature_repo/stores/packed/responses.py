"""Feast's online response made from stored bytes: a feature's column is one message, parsed at once.

Source: protos/feast/serving/ServingService.proto of Feast 0.67, message `GetOnlineFeaturesResponse.FeatureVector`.
Dims: N keys, R rows of the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from feast import FeatureView
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse

from feature_repo.stores.packed.cells import IS_MISSING, IS_PRESENT, STATUSES, Cells, Codes
from feature_repo.stores.packed.times import encode_time
from feature_repo.stores.packed.varints import varint

_FEAST_STATUSES = np.array([FieldStatus.PRESENT, FieldStatus.NOT_FOUND, FieldStatus.OUTSIDE_MAX_AGE], np.uint8)
assert len(_FEAST_STATUSES) == len(STATUSES)


def append_view(
    response: Any, view: FeatureView, names: Sequence[str], cells: Cells, codes: Codes, places: list[int]
) -> None:
    """Add a view's columns to a response.

    Args:
        names: Columns of the response, one per feature of `cells`.
        places: For each of R rows which of N keys it shows.
    """
    times = [b"" if code == IS_MISSING else encode_time(micros) for code, micros in _pairs(codes, cells)]
    expanded = [times[place] for place in places]
    tail = b"".join(chain.from_iterable(zip(map(_time_header, map(len, expanded)), expanded, strict=True)))
    present = 0
    for name, values in zip(names, cells.values, strict=True):
        held = [code == IS_PRESENT and value is not None for code, value in zip(codes.tolist(), values, strict=True)]
        statuses = np.where((codes == IS_PRESENT) & ~np.array(held, bool), IS_MISSING, codes)[places]
        body = _value_bytes(values, held, places) + _status_bytes(_FEAST_STATUSES[statuses].tobytes()) + tail
        response.metadata.feature_names.val.append(name)
        response.results.append(GetOnlineFeaturesResponse.FeatureVector.FromString(body))
        present += int((statuses == IS_PRESENT).sum())
    _count(view, present, len(names) * len(places) - present)


def append_version(response: Any, view: FeatureView) -> None:
    """Add the Feast snapshot that was read, once per view."""
    name = view.projection.name_alias or view.projection.name
    if name not in [known.name for known in response.metadata.feature_view_metadata]:
        known = response.metadata.feature_view_metadata.add()
        known.name = name
        known.version = getattr(view, "current_version_number", 0) or 0


def _pairs(codes: Codes, cells: Cells) -> zip[tuple[int, int]]:
    return zip(codes.tolist(), cells.event_micros.tolist(), strict=True)


def _value_bytes(values: Sequence[bytes | None], held: list[bool], places: list[int]) -> bytes:
    shown = [(value or b"") if keep else b"" for value, keep in zip(values, held, strict=True)]
    expanded = [shown[place] for place in places]
    return b"".join(chain.from_iterable(zip(map(_value_header, map(len, expanded)), expanded, strict=True)))


def _status_bytes(statuses: bytes) -> bytes:
    return b"\x12" + varint(len(statuses)) + statuses if statuses else b""


@lru_cache(maxsize=4096)
def _value_header(length: int) -> bytes:
    return b"\x0a" + varint(length)


@lru_cache(maxsize=64)
def _time_header(length: int) -> bytes:
    return b"\x1a" + varint(length)


def _count(view: FeatureView, num_present: int, num_absent: int) -> None:
    """Feast's own counters; they are off unless its server was started with metrics."""
    try:
        from feast.metrics import track_feature_statuses
    except ImportError:
        return
    track_feature_statuses(view.name, num_present, num_absent)
