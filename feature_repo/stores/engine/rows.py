"""The newest row of every entity of a feature view, as Arrow tables of a bounded number of rows.

Columns of every table: join keys and features under the names of the view's fields and in their declared types,
`event_timestamp`, and `created_timestamp` where the source has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL

from feature_repo.contract import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.stores.offline.arrow_types import declared_type, plain_type

MOMENT = pa.timestamp("us", tz="UTC")


class NewestRows(Protocol):
    """Rows in an order that stays the same as long as the rows do."""

    @property
    def num_rows(self) -> int:
        """How many there are."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when another row is chosen, or a source changes."""
        ...

    @property
    def doubtful(self) -> list[str]:
        """Columns that may hold values which do not fit their types; reading them tells."""
        ...

    def tables(self, names: Sequence[str], start: int, chunk_rows: int) -> Iterator[pa.Table]:
        """Columns `names` of the rows from `start` on, `chunk_rows` of them a table, the last one shorter."""
        ...

    def check_unchanged(self) -> None:
        """Raise when the source changed since the rows were chosen, as far as the source can tell."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Columns of a view: where they come from and what they become."""

    view: str
    keys: tuple[str, ...]
    """Join keys as fields of the view; the one of an entity-less view included."""
    columns: Mapping[str, pa.Field]
    """Column of the source to column of the tables, without the key of an entity-less view; the type of a field whose
    shape Feast does not declare is null."""
    timestamp_column: str
    """Column of the source with the event_timestamp."""
    created_column: str
    """Column of the source with the created_timestamp; empty when it has none."""

    @property
    def names(self) -> list[str]:
        """Columns of the tables in order."""
        return [*(field.name for field in self.columns.values()), *([DUMMY_ENTITY_ID] if self.is_entityless else [])]

    @property
    def is_entityless(self) -> bool:
        """Whether the view has one row for everyone."""
        return self.keys == (DUMMY_ENTITY_ID,)

    @property
    def source_keys(self) -> list[str]:
        """Join keys as columns of the source; none for an entity-less view."""
        return [column for column, field in self.columns.items() if field.name in self.keys]

    @property
    def source_features(self) -> list[str]:
        """Features as columns of the source."""
        times = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
        return [column for column, field in self.columns.items() if field.name not in (*self.keys, *times)]

    def typed(self, stored: pa.Schema) -> dict[str, pa.Field]:
        """`columns` with the types that the source has where the view declares none."""
        undeclared = [name for name in stored.names if name in self.columns and self.columns[name].type == pa.null()]
        types = {name: plain_type(stored.field(name).type) for name in undeclared}
        return {column: field.with_type(types.get(column, field.type)) for column, field in self.columns.items()}

    def describe(self) -> str:
        """Text that changes when a column does."""
        fields = [f"{column}={field.name}:{field.type}" for column, field in self.columns.items()]
        return "\n".join([self.view, *self.keys, *fields])


def layout_of(view: FeatureView) -> Layout:
    """Columns of a view with a batch source.

    Raises:
        ValueError: A feature has the name of a timestamp column.
    """
    source = view.batch_source
    in_source = {field: column for column, field in source.field_mapping.items()}
    keys = tuple(field.name for field in view.entity_columns)
    stored = [field for field in view.entity_columns if field.name != DUMMY_ENTITY_ID] + list(view.features)
    columns = {
        in_source.get(field.name, field.name): pa.field(field.name, declared_type(field.dtype) or pa.null())
        for field in stored
    }
    timestamp = in_source.get(source.timestamp_field, source.timestamp_field)
    created = source.created_timestamp_column
    created = in_source.get(created, created) if created else ""
    for column, name in ((timestamp, EVENT_TIMESTAMP), (created, CREATED_TIMESTAMP)):
        if not column:
            continue
        if column in columns or any(field.name == name for field in columns.values()):
            raise ValueError(f"feature view {view.name} must have no field {name!r} (got one); rename the field")
        columns[column] = pa.field(name, MOMENT)
    return Layout(view=view.name, keys=keys, columns=columns, timestamp_column=timestamp, created_column=created)


def with_entityless_key(table: pa.Table, layout: Layout, names: Sequence[str]) -> pa.Table:
    """Columns `names` of the table, with the key that Feast gives the row of an entity-less view."""
    if layout.is_entityless and DUMMY_ENTITY_ID in names:
        table = table.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * table.num_rows, pa.string()))
    return table.select(list(names))


def digest(*parts: bytes | str) -> str:
    """Fingerprint of some texts and bytes."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
        found.update(b"\0")
    return found.hexdigest()
