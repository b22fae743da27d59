"""Direct reads from a packed online store to numpy and Arrow: no protobuf object, several views in one round trip.

Dims: N entity keys, D width of a vector.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import FeatureService, FeatureStore, FeatureView, Field, ValueType
from feast.errors import FeastError

from feature_repo.stores.packed.cells import IS_PRESENT, STATUSES, CellRequest, Cells, CellStore, Codes, status_codes
from feature_repo.stores.packed.checks import cast_column, is_vector, view_join_keys
from feature_repo.stores.packed.decode import Matrix, arrow_type, decode_column, decode_matrix
from feature_repo.stores.packed.decode_together import ColumnType, decode_columns
from feature_repo.stores.packed.encode import PACKED_WIDTHS
from feature_repo.stores.packed.entity_keys import JoinKey, entity_keys
from feature_repo.stores.packed.rows import check_key_version
from feature_repo.stores.packed.times import NO_TIME, to_micros

Ids = Sequence[Any] | npt.NDArray[Any] | Mapping[str, Any]
"""Values of the one join key, or of each join key by its name."""
Moments = npt.NDArray[np.datetime64]
Statuses = npt.NDArray[np.str_]

_STATUS_NAMES = np.array(STATUSES)
_KEEP_VIEWS_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ReadView:
    """A feature view as it is read: under its own name or an alias, with join keys that may have others too.

    Without slots, because what follows from the fields is kept.
    """

    name: str
    """Under which the rows are handed out."""
    view: FeatureView
    fields: tuple[Field, ...]
    """Features to read."""
    join_keys: tuple[JoinKey, ...]
    """Join keys as they are stored."""
    asked_keys: tuple[str, ...]
    """Join keys as a caller names them, in the same order."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the features to read."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def types(self) -> tuple[ColumnType, ...]:
        """How each of them is stored and handed out."""
        return tuple(ColumnType(kind=each.dtype.to_value_type(), arrow=arrow_type(each.dtype)) for each in self.fields)

    def field(self, name: str) -> Field:
        """A feature by its name.

        Raises:
            ValueError: There is none of it.
        """
        for field in self.fields:
            if field.name == name:
                return field
        known = [field.name for field in self.fields]
        raise ValueError(f"field must be one of {known} of feature view {self.name} (got {name!r})")

    def vector(self) -> Field:
        """The one vector.

        Raises:
            ValueError: There is none, or are several.
        """
        declared = [field for field in self.fields if is_vector(field)]
        vectors = declared or [field for field in self.fields if _may_be_vector(field)]
        if len(vectors) != 1:
            names = [field.name for field in vectors]
            raise ValueError(f"feature view {self.name} must have one vector (it has {names}); name the field")
        return vectors[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRows:
    """What the online store answered for N keys about one view, in the order of the keys."""

    read_view: ReadView
    cells: Cells
    codes: Codes

    @property
    def status(self) -> Statuses:
        """`present`, `missing` or `outside_max_age` of each key [N]."""
        return _STATUS_NAMES[self.codes]

    @property
    def event_timestamps(self) -> Moments:
        """UTC, microseconds [N]; also of a row outside max age, NaT where missing."""
        micros = self.cells.event_micros.copy()
        micros[self.codes == STATUSES.index("missing")] = NO_TIME
        # NaT is the least integer, which is also how a missing time is kept.
        return micros.view("datetime64[us]")

    def matrix(self, field: str | None = None) -> Matrix:
        """Vectors of a field, by default of the view's only vector: float32 [N, D], NaN unless present.

        Raises:
            ValueError: The view has no such field or several vectors, or what is stored is not of one width.
        """
        chosen = self.read_view.vector() if field is None else self.read_view.field(field)
        values = self.cells.values[self.read_view.fields.index(chosen)]
        try:
            found = decode_matrix(values, chosen.dtype.to_value_type(), self.codes == IS_PRESENT)
        except ValueError as error:
            raise ValueError(f"feature view {self.read_view.name}, field {chosen.name}: {error}") from error
        if found.shape[1] == 0 and chosen.vector_length:
            return np.full((len(values), chosen.vector_length), np.nan, np.float32)
        return found

    def column(self, field: str) -> pa.Array:
        """Values of a field in its Arrow type [N]; null unless present."""
        chosen = self.read_view.field(field)
        values = self.cells.values[self.read_view.fields.index(chosen)]
        kind, arrow = chosen.dtype.to_value_type(), arrow_type(chosen.dtype)
        return decode_column(values, kind, arrow, self.codes == IS_PRESENT)

    def columns(self) -> dict[str, pa.Array]:
        """`column` of every field."""
        view = self.read_view
        arrays = decode_columns(self.cells.values, view.types, self.codes == IS_PRESENT)
        return dict(zip(view.names, arrays, strict=True))

    def scalars(self) -> pa.Table:
        """A column per field that is no vector."""
        view = self.read_view
        plain = [place for place, field in enumerate(view.fields) if not _may_be_vector(field)]
        values, types = [self.cells.values[place] for place in plain], [view.types[place] for place in plain]
        arrays = decode_columns(values, types, self.codes == IS_PRESENT)
        return pa.table(dict(zip([view.names[place] for place in plain], arrays, strict=True)))


def _may_be_vector(field: Field) -> bool:
    return field.dtype.to_value_type() in PACKED_WIDTHS


class PackedReader:
    """Reads feature views or services from a packed store; made once, used for every request, also from threads."""

    def __init__(self, store: FeatureStore) -> None:
        online = store._get_provider().online_store
        if not isinstance(online, CellStore):
            raise ValueError(
                f"the online store must be a packed one (got {type(online).__name__}); set online_store.type to "
                "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore or "
                "feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore"
            )
        self._store, self._online = store, online
        self._views: dict[Any, tuple[float, list[ReadView]]] = {}

    def read_matrix(
        self, view: str, ids: Ids, *, field: str | None = None, now: datetime | None = None
    ) -> tuple[Matrix, Moments, Statuses]:
        """Vectors [N, D], event timestamps [N] and statuses [N] of the keys, in their order.

        Args:
            view: Feature view.
            ids: Values of its join key; duplicates are answered each time.
            field: Which vector, where the view has several.
            now: Moment of the read; by default the store's clock.

        Returns:
            Vectors are NaN unless the status is `present`; event timestamps are NaT where it is `missing`.
        """
        _check_moment(now)
        (whole,) = self.views([view])
        chosen = whole.vector() if field is None else whole.field(field)
        (rows,) = self.read_views([replace(whole, fields=(chosen,))], ids, now).values()
        return rows.matrix(chosen.name), rows.event_timestamps, rows.status

    def read(
        self,
        what: str | FeatureService | Sequence[str],
        ids: Ids,
        *,
        now: datetime | None = None,
        fields: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, PackedRows]:
        """Rows of several views in one round trip.

        Args:
            what: A feature service or its name, or the names of feature views.
            ids: Values of the join key that all views share, or of every join key by name.
            now: Moment of the read; by default the store's clock.
            fields: For a view the features to read; all of them by default.

        Raises:
            ValueError: A view or field is unknown, or a key is not of the declared type.
            OnlineStoreUnavailableError: The store did not answer.
        """
        _check_moment(now)
        return self.read_views([_narrowed(view, fields) for view in self.views(what)], ids, now)

    def read_views(self, views: Sequence[ReadView], ids: Ids, now: datetime | None) -> dict[str, PackedRows]:
        """`read` of views that were looked up before."""
        keys: dict[tuple[Any, ...], list[bytes]] = {}
        requests = []
        for each in views:
            same = (each.join_keys, each.asked_keys)
            if same not in keys:
                keys[same] = _keys(each, ids)
            requests.append(CellRequest(view=each.view, names=each.names, keys=keys[same]))
        cells = self._online.read_cells(self._store.config, requests)
        return {
            each.name: PackedRows(read_view=each, cells=found, codes=self._codes(each.view, found, now))
            for each, found in zip(views, cells, strict=True)
        }

    def _codes(self, view: FeatureView, cells: Cells, now: datetime | None) -> Codes:
        if now is not None:
            return status_codes(cells.event_micros, view.ttl, to_micros(now))
        self._online.clock.use(self._store.registry, self._store.project)
        moment, stands = self._online.clock.now(self._store.config.online_store.clock, view.name)
        return status_codes(cells.event_micros, view.ttl, moment, stands=stands)

    def views(self, what: str | FeatureService | Sequence[str]) -> list[ReadView]:
        """Views that a read of `what` covers; looked up anew after a minute.

        Raises:
            ValueError: One of them is unknown.
        """
        key = what if isinstance(what, str | FeatureService) else tuple(what)
        since, found = self._views.get(key, (float("-inf"), []))
        if time.monotonic() - since > _KEEP_VIEWS_S:
            found = self._looked_up(what)
            self._views[key] = (time.monotonic(), found)
        return found

    def _looked_up(self, what: str | FeatureService | Sequence[str]) -> list[ReadView]:
        check_key_version(self._store.config, str(what))
        if isinstance(what, FeatureService):
            return self._service_views(what)
        names = [what] if isinstance(what, str) else list(what)
        if len(names) == 1 and names[0] in {service.name for service in self._store.list_feature_services()}:
            return self._service_views(self._store.get_feature_service(names[0], allow_cache=True))
        return [read_view(self._view(name)) for name in names]

    def _service_views(self, service: FeatureService) -> list[ReadView]:
        return [read_view(self._view(item.name), item) for item in service.feature_view_projections]

    def _view(self, name: str) -> FeatureView:
        try:
            return self._store.get_feature_view(name, allow_registry_cache=True)
        except FeastError as error:
            known = sorted(view.name for view in self._store.list_feature_views())
            raise ValueError(
                f"feature view or service must be one of the repo's (got {name!r}; views are {known})"
            ) from error


def read_view(view: FeatureView, projection: Any | None = None) -> ReadView:
    """A view as a service's projection shows it, or by itself."""
    fields = view.features if projection is None else projection.features
    renamed = {} if projection is None else projection.join_key_map
    join_keys = view_join_keys(view)
    return ReadView(
        name=view.name if projection is None else projection.name_to_use(),
        view=view,
        fields=tuple(fields),
        join_keys=join_keys,
        asked_keys=tuple(renamed.get(key.name, key.name) for key in join_keys),
    )


def _check_moment(now: datetime | None) -> None:
    if now is not None and now.tzinfo is None:
        raise ValueError(f"now must have a time zone (got {now!r})")


def _narrowed(view: ReadView, fields: Mapping[str, Sequence[str]] | None) -> ReadView:
    if fields is None or view.name not in fields:
        return view
    return replace(view, fields=tuple(map(view.field, fields[view.name])))


def _keys(view: ReadView, ids: Ids) -> list[bytes]:
    if isinstance(ids, Mapping):
        absent = [name for name in view.asked_keys if name not in ids]
        if absent:
            raise ValueError(f"ids must hold join keys {view.asked_keys} for {view.name} (got {sorted(ids)})")
        values = [ids[name] for name in view.asked_keys]
    elif len(view.asked_keys) == 1:
        values = [ids]
    else:
        raise ValueError(f"ids must be a mapping with join keys {view.asked_keys} for {view.name} (got {type(ids)})")
    columns = [_key_column(view, key, column) for key, column in zip(view.join_keys, values, strict=True)]
    return entity_keys(view.join_keys, columns)


def _key_column(view: ReadView, key: JoinKey, values: Any) -> pa.Array:
    """Key values in the declared type; numbers are not taken for strings, nor strings for numbers."""
    try:
        column = pa.array(values) if len(values) else pa.array([], pa.null())
        textual = key.kind in (ValueType.STRING, ValueType.BYTES)
        is_text = pa.types.is_string(column.type) or pa.types.is_binary(column.type)
        if len(column) and (textual != is_text or column.null_count or pa.types.is_boolean(column.type)):
            raise pa.ArrowInvalid(f"a column of {column.type}")
        return cast_column(column, key.kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"join key {key.name} of feature view {view.name} must be {key.kind.name} without nulls (got {error})"
        ) from error
