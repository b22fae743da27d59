"""Feast's online reads on a packed store: TTL enforced, responses made from the stored bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
from feast import FeatureView, RepoConfig, ValueType, utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.stores.online.awaited import AwaitedInThreads
from feature_repo.stores.online.read_clock import ReadClock
from feature_repo.stores.packed.asked_keys import WRONG_TYPE, refuse_wrong_keys
from feature_repo.stores.packed.cells import IS_MISSING, IS_PRESENT, CellRequest, Cells, Codes, status_codes
from feature_repo.stores.packed.checks import view_join_keys
from feature_repo.stores.packed.entity_keys import entity_key, entity_keys
from feature_repo.stores.packed.responses import append_version, append_view
from feature_repo.stores.packed.rows import KEY_VERSION, check_key_version
from feature_repo.stores.packed.times import to_datetime

_FEW_KEYS = 16
"""Up to so many keys, serialising them one by one is faster than whole columns."""

Rows = list[tuple[datetime | None, dict[str, Value] | None]]


class PackedReads(AwaitedInThreads):
    """Goes before one of Feast's stores among the parents of a class that defines `read_cells`."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ReadClock()

    def read_cells(self, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        """What the store holds for each request."""
        raise TypeError(f"{type(self).__name__} must define read_cells for {len(requests)} views of {config.project}")

    def get_online_features(self, config: RepoConfig, *args: Any, **kwargs: Any) -> Any:
        """Feast's `get_online_features`; a row outside max age comes without values and with that status.

        Raises:
            ValueError: A key is not of the declared type.
            OnlineStoreUnavailableError: The store did not answer.
        """
        self._learn_registry(*args, **kwargs)
        try:
            return super().get_online_features(config, *args, **kwargs)  # type: ignore[misc]
        except WRONG_TYPE as error:
            refuse_wrong_keys(error, *args, **kwargs)
            raise

    async def get_online_features_async(self, config: RepoConfig, *args: Any, **kwargs: Any) -> Any:
        """The same, awaited."""
        self._learn_registry(*args, **kwargs)
        try:
            return await super().get_online_features_async(config, *args, **kwargs)  # type: ignore[misc]
        except WRONG_TYPE as error:
            refuse_wrong_keys(error, *args, **kwargs)
            raise

    def _learn_registry(
        self, features: Any, entity_rows: Any, registry: Any, project: str, *args: Any, **kwargs: Any
    ) -> None:
        del features, entity_rows, args, kwargs
        self.clock.use(registry, project)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[Any],
        requested_features: list[str] | None = None,
    ) -> Rows:
        """Event timestamp and values of each entity; no values where the row is outside max age or missing."""
        check_key_version(config, table.name)
        names = tuple(requested_features or [field.name for field in table.features])
        keys = [serialize_entity_key(key, entity_key_serialization_version=KEY_VERSION) for key in entity_keys]
        (cells,) = self.read_cells(config, [CellRequest(view=table, names=names, keys=keys)])
        rows: Rows = []
        for place, code in enumerate(self._codes(config, table, cells).tolist()):
            moment = None if code == IS_MISSING else to_datetime(int(cells.event_micros[place]))
            stored = zip(names, cells.values, strict=True)
            held = {name: Value.FromString(item) for name, values in stored if (item := values[place]) is not None}
            rows.append((moment, held if code == IS_PRESENT else None))
        return rows

    def _codes(self, config: RepoConfig, view: FeatureView, cells: Cells) -> Codes:
        now, stands = self.clock.now(config.online_store.clock, view.name)
        # An on-demand view that is written to the store has none.
        return status_codes(cells.event_micros, getattr(view, "ttl", None), now, stands=stands)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's hook between its request and its response: all views of a call at once."""
        requests, places = [], []
        for view, names in grouped_refs:
            check_key_version(config, view.name)
            keys = _asked_keys(view, join_key_values, entity_name_to_join_key_map)
            distinct = {key: place for place, key in enumerate(dict.fromkeys(keys))}
            requests.append(CellRequest(view=view, names=tuple(names), keys=list(distinct)))
            places.append([distinct[key] for key in keys])
        for request, cells, rows in zip(requests, self.read_cells(config, requests), places, strict=True):
            view = request.view
            prefix = f"{view.projection.name_to_use()}__" if full_feature_names else ""
            columns = [prefix + name for name in request.names]
            append_view(online_features_response, view, columns, cells, self._codes(config, view, cells), rows)
            if include_feature_view_version_metadata:
                append_version(online_features_response, view)


def _asked_keys(view: FeatureView, join_key_values: dict[str, Any], join_key_of: dict[str, str]) -> list[bytes]:
    """Serialised entity key of each row of a request, where the values are Feast's messages."""
    values = utils._get_table_entity_values(view, join_key_of, join_key_values)
    join_keys = view_join_keys(view)
    absent = [key.name for key in join_keys if key.name not in values]
    if absent:
        raise KeyError(f"feature view {view.name} must be asked with join keys {absent} (got {sorted(values)})")
    columns = [values[key.name] for key in join_keys]
    kinds = [{value.WhichOneof("val") for value in column} for column in columns]
    if any(None in found for found in kinds):
        nulls = [key.name for key, found in zip(join_keys, kinds, strict=True) if None in found]
        raise ValueError(f"join keys {nulls} of feature view {view.name} must not be null")
    plain = [_plain(column) for column in columns]
    as_declared = all(found <= {_field_of(key.kind)} for key, found in zip(join_keys, kinds, strict=True))
    if as_declared and len(columns[0]) <= _FEW_KEYS:
        return [entity_key(join_keys, row) for row in zip(*plain, strict=True)]
    return entity_keys(join_keys, [pa.array(column) for column in plain])


@lru_cache(maxsize=64)
def _field_of(kind: ValueType) -> str:
    """Field of a `Value` that holds this type."""
    return f"{kind.name.lower()}_val"


def _plain(column: Sequence[Value]) -> list[Any]:
    return [getattr(value, str(value.WhichOneof("val"))) for value in column]
