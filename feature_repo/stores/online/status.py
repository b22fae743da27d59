"""Online reads that tell present, missing and outside max age apart, on every online store.

From a packed store the values are read directly, all views in one round trip; from any other through Feast's own
`get_online_features`, which ignores the TTL: here a value older than its view's TTL is never handed out.

Dims: N keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import FeatureStore
from feast.types import from_feast_to_pyarrow_type

from feature_repo.contract import feature_reference, join_key
from feature_repo.stores.online.values import column_array
from feature_repo.stores.packed.cells import IS_MISSING, IS_PRESENT, STATUSES, CellStore, Codes, status_codes
from feature_repo.stores.packed.reader import PackedReader, ReadView, read_view
from feature_repo.stores.packed.times import NO_TIME, to_micros

_STATUSES = pa.array(STATUSES)
_MOST_ASKED = 64
"""Selections of features that are kept."""

Integers = npt.NDArray[np.int64]
Keys = Sequence[int] | Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineRead:
    """What the online store answered for N keys, in their order."""

    features: pa.Table
    """A `view__feature` column per feature, null unless the row is present."""
    event_timestamps: dict[str, pa.Array]
    """Per view, the event_timestamp of each key's row, also of one outside max age; null where missing."""
    statuses: dict[str, pa.DictionaryArray]
    """Per view, `present`, `missing` or `outside_max_age` of each key."""

    def codes(self, view: str) -> Codes:
        """Answers of a view [N] as codes: `packed.cells.IS_PRESENT` and so on."""
        found: Codes = self.statuses[view].indices.to_numpy()
        return found

    def status(self, view: str) -> list[str]:
        """Statuses of a view as strings."""
        return [str(item) for item in self.statuses[view].to_pylist()]


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    name: str
    ttl: timedelta
    fields: tuple[pa.Field, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """One view's rows, however they were read."""

    micros: Integers
    """Unix time of each row; `NO_TIME` where there is none."""
    codes: Codes
    columns: dict[str, pa.Array]


V = TypeVar("V", _View, ReadView)


class OnlineReader:
    """Reads the views of one entity in feature services; made once, used for every request, also from threads.

    What several services hold is read once.

    Raises:
        ValueError: A service has no view of the entity.
    """

    def __init__(self, store: FeatureStore, services: str | Sequence[str], entity: str) -> None:
        self._store = store
        self._join_key = join_key(entity)
        names = [services] if isinstance(services, str) else services
        self._read_views = _merged([view for service in names for view in _views_of(store, service, entity)])
        self._views = [_view(each) for each in self._read_views]
        self._packed = PackedReader(store) if isinstance(store._get_provider().online_store, CellStore) else None
        self._asked: dict[Collection[str], list[ReadView]] = {}

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Arrow type of each `view:feature` that is read."""
        return {f"{view.name}:{field.name}": field.type for view in self._views for field in view.fields}

    @property
    def keeps_deadlines(self) -> bool:
        """Whether `stores.online.deadline` ends a read by itself."""
        keeps = getattr(self._store._get_provider().online_store, "keeps_deadlines", None)
        return keeps is not None and bool(keeps(self._store.config))

    def read(self, ids: Keys, now: datetime, only: Collection[str] | None = None) -> OnlineRead:
        """Features of the keys at `now`.

        A row whose event_timestamp lies after `now` may not be used yet and counts as missing.

        Args:
            only: References `view:feature` to read; all of the service when not given.

        Raises:
            ValueError: `now` is naive.
        """
        if now.tzinfo is None:
            raise ValueError(f"now must have a time zone (got {now!r})")
        if self._packed is None:
            found = self._through_feast([int(key) for key in ids], now, _narrowed(self._views, only))
        else:
            found = self._directly(self._packed, ids, now, self._asked_views(only))
        return OnlineRead(
            features=pa.table({name: column for rows in found.values() for name, column in rows.columns.items()}),
            event_timestamps={
                view: pa.array(rows.micros, pa.timestamp("us", tz="UTC"), mask=rows.codes == IS_MISSING)
                for view, rows in found.items()
            },
            statuses={view: pa.DictionaryArray.from_arrays(rows.codes, _STATUSES) for view, rows in found.items()},
        )

    def _asked_views(self, only: Collection[str] | None) -> list[ReadView]:
        """Views with what is asked of them; kept, for most requests ask for the same."""
        if only is None:
            return self._read_views
        if not isinstance(only, frozenset):
            return _narrowed(self._read_views, only)
        if only not in self._asked:
            if len(self._asked) >= _MOST_ASKED:
                self._asked.clear()
            self._asked[only] = _narrowed(self._read_views, only)
        return self._asked[only]

    def _directly(self, reader: PackedReader, ids: Keys, now: datetime, views: Sequence[ReadView]) -> dict[str, _Found]:
        found = {}
        for view, rows in reader.read_views(views, ids, now).items():
            columns = {feature_reference(view, name): column for name, column in rows.columns().items()}
            found[view] = _Found(micros=rows.cells.event_micros, codes=rows.codes, columns=columns)
        return found

    def _through_feast(self, ids: list[int], now: datetime, views: Sequence[_View]) -> dict[str, _Found]:
        vectors = self._vectors(ids, [f"{view.name}:{field.name}" for view in views for field in view.fields])
        found = {}
        for view in views:
            micros = _microseconds(vectors, view)
            codes = status_codes(micros, view.ttl, to_micros(now))
            columns = {}
            for field in view.fields:
                name = feature_reference(view.name, field.name)
                columns[name] = column_array(vectors[name].values if vectors else (), field.type, codes == IS_PRESENT)
            found[view.name] = _Found(micros=micros, codes=codes, columns=columns)
        return found

    def _vectors(self, ids: list[int], references: list[str]) -> dict[str, Any]:
        if not ids or not references:
            return {}
        response = self._store.get_online_features(references, {self._join_key: ids}, full_feature_names=True)
        return dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))


def read_online(store: FeatureStore, service: str, entity: str, ids: Sequence[int], now: datetime) -> OnlineRead:
    """One read of the views of `entity` in `service`; servers keep an `OnlineReader` instead."""
    return OnlineReader(store, service, entity).read(ids, now)


def _narrowed(views: Sequence[V], only: Collection[str] | None) -> list[V]:
    """Views with those of their fields that are referred to; those without any are left out."""
    if only is None:
        return list(views)
    kept = (replace(view, fields=tuple(f for f in view.fields if f"{view.name}:{f.name}" in only)) for view in views)
    return [view for view in kept if view.fields]


def _views_of(store: FeatureStore, service: str, entity: str) -> list[ReadView]:
    projections = store.get_feature_service(service, allow_cache=True).feature_view_projections
    views = [(store.get_feature_view(item.name, allow_registry_cache=True), item) for item in projections]
    own = [read_view(view, item) for view, item in views if view.entities == [entity]]
    if not own:
        raise ValueError(f"feature service {service} must have a view of {entity} (got none)")
    return own


def _merged(views: Iterable[ReadView]) -> list[ReadView]:
    """Views of one name as one, with the fields of all."""
    found: dict[str, ReadView] = {}
    for view in views:
        held = found.setdefault(view.name, view)
        more = tuple(field for field in view.fields if field.name not in held.names)
        found[view.name] = replace(held, fields=held.fields + more) if more else held
    return list(found.values())


def _view(view: ReadView) -> _View:
    fields = tuple(pa.field(item.name, from_feast_to_pyarrow_type(item.dtype)) for item in view.fields)
    return _View(name=view.view.name, ttl=view.view.ttl or timedelta(0), fields=fields)


def _microseconds(vectors: dict[str, Any], view: _View) -> Integers:
    """Unix time of each key's row in the view; Feast answers zero where there is none."""
    if not vectors:
        return np.zeros(0, np.int64)
    moments = vectors[feature_reference(view.name, view.fields[0].name)].event_timestamps
    micros = np.array([moment.seconds * 1_000_000 + moment.nanos // 1000 for moment in moments], dtype=np.int64)
    return np.where(micros == 0, NO_TIME, micros)
