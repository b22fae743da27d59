"""Attributes that come with a push: checked against their declaration, laid over those that are known already."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.contract import AttributeField, RepoManifest, attributes_view, feature_reference, join_key
from feature_repo.encoding import CategoricalInput, InputSpec, MultiValuedInput
from feature_repo.push.errors import PushError

MAX_ELEMENTS = 10_000
"""Elements of the longest list that is taken."""

Attributes = Mapping[int, Mapping[str, Any]]
"""Values by name, by entity key."""

_LARGEST = float(np.finfo(np.float32).max)
_INT64 = range(-(2**63), 2**63)
_ARROW = {"int64": pa.int64(), "float": pa.float64(), "string": pa.string()}


def said(given: Attributes) -> dict[int, dict[str, Any]]:
    """The values that say something: a null leaves what was known, and an entity without others is not written."""
    spoken = {
        key: {name: value for name, value in values.items() if value is not None} for key, values in given.items()
    }
    return {key: values for key, values in spoken.items() if values}


def unseen_values(encoder: InputSpec, entity: str, given: Attributes) -> dict[str, int]:
    """Per attribute, how many given values a tower's vocabulary lacks: they are stored, and the tower reads none."""
    prefix, counts = feature_reference(attributes_view(entity), ""), {}
    items: tuple[CategoricalInput | MultiValuedInput, ...] = (*encoder.categorical, *encoder.multi_valued)
    for item in items:
        if not item.column.startswith(prefix):
            continue
        name, known = item.column.removeprefix(prefix), set(item.vocabulary)
        lists = (value if isinstance(value, list | tuple) else (value,) for value in _values_of(name, given))
        if unseen := sum(1 for values in lists for value in values if value not in known):
            counts[name] = unseen
    return counts


def _values_of(name: str, given: Attributes) -> list[Any]:
    return [values[name] for values in given.values() if name in values]


def check_attributes(manifest: RepoManifest, entity: str, ids: Sequence[int], given: Attributes) -> None:
    """Pass when every value is of a declared attribute and of its type.

    Raises:
        PushError: One is not; the text names key, attribute and value.
    """
    declared = {field.name: field for field in manifest.attributes(entity)}
    if strangers := sorted(set(given) - set(ids)):
        raise PushError(f"attributes must be of the pushed {entity}s {list(ids)[:5]} (got some of {strangers[:5]})")
    for key, values in given.items():
        for name, value in values.items():
            if name not in declared:
                known = f"has {', '.join(declared)}" if declared else "has none"
                raise PushError(
                    f"attributes of {join_key(entity)} {key} must be declared ones (got {name!r}); "
                    f"dataset {manifest.dataset} {known}"
                )
            if not _fits(declared[name], value):
                field = declared[name]
                raise PushError(
                    f"{name} of {join_key(entity)} {key} must be {_wanted(field)} (got {_shown(value)}); correct it"
                )


def arrow_type(field: AttributeField) -> pa.DataType:
    """Type of an attribute's column in the offline store."""
    if field.kind == "vector":
        return pa.list_(pa.float32())
    element = _ARROW[field.type]
    return pa.list_(element) if field.kind == "multi_valued" else element


def attribute_columns(
    manifest: RepoManifest, entity: str, ids: Sequence[int], given: Attributes, known: pa.Table
) -> dict[str, pa.Array]:
    """Columns of the attribute view for the entities that attributes are given of: what is not given stays as it is.

    Args:
        known: A `view__feature` column for each attribute, in the order of `ids`; null where nothing is known.
    """
    rows = [position for position, key in enumerate(ids) if given.get(key)]
    whole = overlaid(manifest, entity, ids, given, known)
    return {
        field.name: whole[_column(entity, field)].combine_chunks().take(pa.array(rows, pa.int64()))
        for field in manifest.attributes(entity)
    }


def overlaid(manifest: RepoManifest, entity: str, ids: Sequence[int], given: Attributes, known: pa.Table) -> pa.Table:
    """What is known of the entities, with the attributes that are given in their place."""
    table = known
    for field in manifest.attributes(entity):
        name = _column(entity, field)
        before = table[name].to_pylist()
        values = [given.get(key, {}).get(field.name, before[row]) for row, key in enumerate(ids)]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, arrow_type(field)))
    return table


def _column(entity: str, field: AttributeField) -> str:
    return feature_reference(attributes_view(entity), field.name)


def _fits(field: AttributeField, value: Any) -> bool:
    one = _CHECKS[field.type]
    if field.kind not in ("multi_valued", "vector"):
        return one(value)
    if not isinstance(value, list | tuple) or len(value) > MAX_ELEMENTS or not all(map(one, value)):
        return False
    return field.kind == "multi_valued" or (len(value) == field.dim and all(abs(each) <= _LARGEST for each in value))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else value in _INT64


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_CHECKS: dict[str, Callable[[Any], bool]] = {"int64": _is_integer, "float": _is_number, "string": _is_text}


def _wanted(field: AttributeField) -> str:
    if field.kind == "vector":
        return f"a list of {field.dim} finite numbers"
    element = {"int64": "a 64-bit integer", "float": "a finite number", "string": "a text"}[field.type]
    return f"a list of at most {MAX_ELEMENTS} elements, each {element}" if field.kind == "multi_valued" else element


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
