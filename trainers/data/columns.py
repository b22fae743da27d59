"""Canonical tables and columns of the event log, as a dataset's declaration implies them.

The one place that knows which columns each table has, their SQL types and what makes a single value bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from trainers.data.connection import quote
from trainers.data.dataset import Attribute, DatasetSpec

Kind = Literal[
    "key", "time", "text", "label", "count", "share", "number", "keys", "categorical", "dense", "multi_valued", "vector"
]

IMPRESSIONS, CONVERSIONS, USERS, PINS = "impressions", "conversions", "users", "pins"

_INTEGER_TEXT = r"[+-]?[0-9]+"
ZONED_TEXT = r".*[0-9]:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)? ?([zZ]|UTC|[+-][0-9]{2}(:?[0-9]{2})?)"
"""Pattern of an ISO 8601 text that says its time zone."""
NAIVE_TYPES = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE")
ZONED_TYPES = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", "TIMESTAMPTZ_NS")

_INTEGERS = ("BIGINT", "INTEGER", "TINYINT")
_FLOATS = ("DOUBLE", "FLOAT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a canonical table."""

    name: str
    kind: Kind
    """What its values mean, which fixes the SQL type and the checks."""
    element: str = "string"
    """Declared type of an attribute's value or list element."""
    dim: int = 0
    """Width of a `vector`."""
    required: bool = True
    """Whether the table may do without the column."""
    nullable: bool = False
    """Whether a row may do without a value."""

    @property
    def sql_type(self) -> str:
        """DuckDB type in the event log."""
        scalar = {"int64": "BIGINT", "float": "DOUBLE", "string": "VARCHAR"}[self.element]
        return {
            "key": "BIGINT",
            "time": "TIMESTAMPTZ",
            "text": "VARCHAR",
            "label": "TINYINT",
            "count": "INTEGER",
            "share": "DOUBLE",
            "number": "DOUBLE",
            "keys": "BIGINT[]",
            "categorical": scalar,
            "dense": scalar,
            "multi_valued": f"{scalar}[]",
            "vector": "FLOAT[]",
        }[self.kind]

    def cast(self, source_type: str) -> str:
        """SQL that reads the staged column as `sql_type`, null where a value cannot be read.

        NaN counts as a missing number. A fraction is not an integer: DuckDB alone would round `1.5` to 2.
        """
        raw = f"s.{quote(self.name)}"
        value = f"TRY_CAST({raw} AS {self.sql_type})"
        if self.kind == "time" and source_type == "VARCHAR":
            return f"CASE WHEN regexp_full_match({raw}, '{ZONED_TEXT}') THEN {value} END"
        if self.sql_type in _INTEGERS and source_type == "VARCHAR":
            return f"CASE WHEN regexp_full_match(trim({raw}), '{_INTEGER_TEXT}') THEN {value} END"
        if self.sql_type in _INTEGERS and source_type in _FLOATS:
            return f"CASE WHEN {raw} = trunc({raw}) THEN {value} END"
        if self.sql_type == "DOUBLE":
            return f"CASE WHEN NOT isnan({value}) THEN {value} END"
        return value

    def present(self, source_type: str) -> str:
        """SQL that holds where the staged column has a value."""
        raw = f"s.{quote(self.name)}"
        return f"({raw} IS NOT NULL AND NOT isnan({raw}))" if source_type in _FLOATS else f"{raw} IS NOT NULL"

    def faults(self, source_type: str, now: str) -> Iterator[tuple[str, str]]:
        """Pairs of SQL condition and reason; a row is bad for the first condition that holds.

        Args:
            source_type: DuckDB type of the staged column.
            now: SQL of the moment after which a timestamp lies in the future.
        """
        raw, value = f"s.{quote(self.name)}", f"c.{quote(self.name)}"
        if self.kind == "label":
            unknown = f"({value} IS NULL OR {value} NOT IN (0, 1))"
            yield f"{self.present(source_type)} AND {unknown}", f"label {self.name} not 0, 1 or null"
            return
        if self.kind == "time" and source_type == "VARCHAR":
            naive = f"TRY_CAST({raw} AS TIMESTAMP) IS NOT NULL AND NOT regexp_full_match({raw}, '{ZONED_TEXT}')"
            yield naive, f"naive {self.name}"
        yield f"{self.present(source_type)} AND {value} IS NULL", f"wrong type: {self.name}"
        if not self.nullable:
            yield f"{value} IS NULL", f"null {self.name}"
        yield from self._range_faults(value, now)

    def _range_faults(self, value: str, now: str) -> Iterator[tuple[str, str]]:
        if self.kind in ("key", "count"):
            yield f"{value} < 0", f"negative {self.name}"
        elif self.kind == "time":
            yield f"{value} > {now}", f"future {self.name}"
        elif self.kind == "text":
            yield f"trim({value}) = ''", f"empty {self.name}"
        elif self.kind == "share":
            yield f"NOT ({value} > 0 AND {value} <= 1)", f"{self.name} outside (0, 1]"
        elif self.kind in ("number", "dense") and self.sql_type == "DOUBLE":
            yield f"isinf({value})", f"{self.name} not finite"
        elif self.kind in ("keys", "multi_valued", "vector"):
            yield from self._list_faults(value)

    def _list_faults(self, value: str) -> Iterator[tuple[str, str]]:
        yield f"len({value}) <> list_count({value})", f"null or unreadable element in {self.name}"
        if self.kind == "vector":
            yield f"len({value}) <> {self.dim}", f"{self.name} not of width {self.dim}"
            yield f"NOT list_bool_and(list_transform({value}, lambda v: isfinite(v)))", f"{self.name} not finite"


def _attribute(attribute: Attribute) -> Column:
    return Column(name=attribute.name, kind=attribute.kind, element=attribute.type, dim=attribute.dim, nullable=True)


def table_columns(spec: DatasetSpec, table: str) -> tuple[Column, ...]:
    """Columns of a canonical table in their order.

    Args:
        spec: Declaration of the dataset.
        table: `impressions`, `conversions`, `users`, `pins` or `history_<name>`.
    """
    time = Column(name="event_timestamp", kind="time")
    impression, user, pin = (Column(name=f"{key}_id", kind="key") for key in ("impression", "user", "pin"))
    if table == IMPRESSIONS:
        labels = (Column(name=label, kind="label", nullable=True) for label in spec.labels)
        return (impression, user, pin, Column(name="surface", kind="text"), time, *labels, *_optional())
    if table == CONVERSIONS:
        value = Column(name="value", kind="number", required=False, nullable=True)
        reference = replace(impression, nullable=True)
        return (reference, time, Column(name="kind", kind="text"), value)
    if table == USERS:
        return (user, time, *map(_attribute, spec.user_attributes))
    if table == PINS:
        return (pin, time, *map(_attribute, spec.pin_attributes))
    return (user, time, Column(name="pin_ids", kind="keys"))


def _optional() -> tuple[Column, ...]:
    return (
        Column(name="position", kind="count", required=False, nullable=True),
        Column(name="propensity", kind="share", required=False, nullable=True),
        Column(name="sampling_rate", kind="share", required=False, nullable=True),
    )


def table_names(spec: DatasetSpec) -> tuple[str, ...]:
    """Every table a dataset may stage, entities first so that later tables can be checked against them."""
    return (USERS, PINS, IMPRESSIONS, CONVERSIONS, *(f"history_{name}" for name in spec.histories))
