"""Attributes of users and Pins: which columns models can read, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from trainers.data.discovery.found_tables import EntityTable
from trainers.data.discovery.profiles import FEW_NUMBERS, ColumnProfile
from trainers.data.discovery.targets import as_name
from trainers.data.discovery.vocabulary import TITLE, named_like, words

_MOST_CATEGORIES = 5_000
_SMALL_TABLE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundAttribute:
    """A column as an attribute."""

    name: str
    column: str
    kind: Literal["categorical", "dense", "multi_valued", "vector"]
    type: Literal["string", "int64", "float"]
    why: str
    dim: int = 0
    separator: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """What a table tells about its entity."""

    found: tuple[FoundAttribute, ...]
    left_out: dict[str, str]
    """Columns that are no attributes, and why."""
    title: str | None = None
    """Attribute that names the entity to people."""


def find_attributes(entity: EntityTable) -> Attributes:
    """Attributes of an entity's table."""
    taken = {entity.key.column, entity.time.column if entity.time else ""}
    found: list[FoundAttribute] = []
    left_out: dict[str, str] = {}
    title = None
    for column in entity.table.columns.values():
        if column.name in taken:
            continue
        reason = _useless(column)
        is_title = column.reading == "text" and named_like(column.name, TITLE)
        if reason and not (is_title and title is None and not column.is_constant):
            left_out[column.name] = reason
            continue
        attribute = _attribute(column)
        found.append(attribute)
        if is_title and title is None:
            title = attribute.name
    return Attributes(found=tuple(found), left_out=left_out, title=title)


def _useless(column: ColumnProfile) -> str | None:
    if column.reading == "empty":
        return "no values"
    if column.is_constant:
        return f"the same in every row, {column.smallest}"
    if column.reading == "time":
        return "moments are no attribute; make an age of it if it matters"
    if column.reading == "integer" and column.is_unique:
        return "a whole number of its own in every row: an id or a row number"
    is_word = column.reading == "text" and column.separator is None
    if is_word and column.distinct > max(_SMALL_TABLE_SHARE * column.present, FEW_NUMBERS):
        return f"{column.distinct:,} different texts in {column.present:,} rows"
    if column.reading == "text" and column.distinct > _MOST_CATEGORIES and column.separator is None:
        return f"{column.distinct:,} different texts: too many for categories"
    return None


def _attribute(column: ColumnProfile) -> FoundAttribute:
    made = FoundAttribute(
        name=as_name(column.name), column=column.name, kind="categorical", type="string", why=_evidence(column)
    )
    if column.reading == "vector":
        return replace(made, kind="vector", type="float", dim=column.dim)
    if column.reading == "list":
        return replace(made, kind="multi_valued", type="int64" if column.elements_are_numbers else "string")
    if column.separator is not None:
        return replace(made, kind="multi_valued", type="string", separator=column.separator)
    is_id = words(column.name)[-1:] == ["id"]
    if column.reading == "integer" and (is_id or column.distinct <= FEW_NUMBERS):
        return replace(made, kind="categorical", type="int64")
    if column.reading in ("integer", "number"):
        return replace(made, kind="dense", type="float")
    return made


def _evidence(column: ColumnProfile) -> str:
    share = "" if column.present == column.rows else f", {1 - column.present / column.rows:.0%} missing"
    return f"{column.distinct:,} different values, {column.examples()}{share}"
