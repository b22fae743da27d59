"""Online reads that tell present, missing and outside max age apart, through Feast's own `get_online_features`.

Feast ignores the TTL when it reads online; here a value older than its view's TTL is never handed out.

Dims: N keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import FeatureStore
from feast.types import from_feast_to_pyarrow_type

from feature_repo.contract import MISSING, OUTSIDE_MAX_AGE, PRESENT, feature_reference, join_key
from feature_repo.stores.online_values import column_array

_STATUSES = pa.array([PRESENT, MISSING, OUTSIDE_MAX_AGE])
_PRESENT, _MISSING, _OUTSIDE_MAX_AGE = range(3)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineRead:
    """What the online store answered for N keys, in their order."""

    features: pa.Table
    """A `view__feature` column per feature, null unless the row is present."""
    event_timestamps: dict[str, pa.Array]
    """Per view, the event_timestamp of each key's row, also of one outside max age; null where missing."""
    statuses: dict[str, pa.DictionaryArray]
    """Per view, `present`, `missing` or `outside_max_age` of each key."""

    def status(self, view: str) -> list[str]:
        """Statuses of a view as strings."""
        return [str(item) for item in self.statuses[view].to_pylist()]


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    name: str
    ttl: timedelta
    fields: tuple[pa.Field, ...]


class OnlineReader:
    """Reads the views of one entity in a feature service; made once, used for every request, also from threads."""

    def __init__(self, store: FeatureStore, service: str, entity: str) -> None:
        self._store = store
        self._join_key = join_key(entity)
        projections = store.get_feature_service(service, allow_cache=True).feature_view_projections
        views = [(store.get_feature_view(item.name, allow_registry_cache=True), item) for item in projections]
        self._views = [_view(view, item.features) for view, item in views if view.entities == [entity]]
        if not self._views:
            raise ValueError(f"feature service {service} must have a view of {entity} (got none)")
        self._references = [f"{view.name}:{field.name}" for view in self._views for field in view.fields]

    def read(self, ids: Sequence[int], now: datetime) -> OnlineRead:
        """Features of the keys at `now`.

        A row whose event_timestamp lies after `now` may not be used yet and counts as missing.

        Raises:
            ValueError: `now` is naive.
        """
        if now.tzinfo is None:
            raise ValueError(f"now must have a time zone (got {now!r})")
        vectors = self._vectors(list(ids)) if len(ids) else {}
        columns: dict[str, pa.Array] = {}
        event_timestamps: dict[str, pa.Array] = {}
        statuses: dict[str, pa.DictionaryArray] = {}
        for view in self._views:
            moments = _microseconds(vectors, view)
            codes = _codes(moments, view.ttl, int(now.timestamp() * 1_000_000))
            known = pa.array(moments, pa.timestamp("us", tz="UTC"), mask=codes == _MISSING)
            event_timestamps[view.name] = known
            statuses[view.name] = pa.DictionaryArray.from_arrays(codes.astype(np.int8), _STATUSES)
            for field in view.fields:
                name = feature_reference(view.name, field.name)
                values = vectors[name].values if vectors else ()
                columns[name] = column_array(values, field.type, codes == _PRESENT)
        return OnlineRead(features=pa.table(columns), event_timestamps=event_timestamps, statuses=statuses)

    def _vectors(self, ids: list[int]) -> dict[str, Any]:
        response = self._store.get_online_features(self._references, {self._join_key: ids}, full_feature_names=True)
        return dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))


def read_online(store: FeatureStore, service: str, entity: str, ids: Sequence[int], now: datetime) -> OnlineRead:
    """One read of the views of `entity` in `service`; servers keep an `OnlineReader` instead."""
    return OnlineReader(store, service, entity).read(ids, now)


def _view(view: Any, features: Iterable[Any]) -> _View:
    fields = tuple(pa.field(item.name, from_feast_to_pyarrow_type(item.dtype)) for item in features)
    return _View(name=view.name, ttl=view.ttl or timedelta(0), fields=fields)


def _microseconds(vectors: dict[str, Any], view: _View) -> Integers:
    """Unix time of each key's row in the view; 0 where there is none."""
    if not vectors:
        return np.zeros(0, np.int64)
    moments = vectors[feature_reference(view.name, view.fields[0].name)].event_timestamps
    return np.array([moment.seconds * 1_000_000 + moment.nanos // 1000 for moment in moments], dtype=np.int64)


def _codes(moments: Integers, ttl: timedelta, now: int) -> Integers:
    codes = np.full(len(moments), _PRESENT, np.int64)
    if ttl:
        codes[now - moments > ttl // timedelta(microseconds=1)] = _OUTSIDE_MAX_AGE
    codes[(moments == 0) | (moments > now)] = _MISSING
    return codes
