"""Which feature columns a model reads, fitted on frames of its training days."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import contract
from feature_repo.contract import AttributeField, EmbeddingVersion, RepoManifest
from feature_repo.encoding import (
    CategoricalInput,
    DenseInput,
    IdInput,
    InputSpec,
    MultiValuedInput,
    VectorInput,
)

MAX_VOCABULARY = 5_000
"""Values kept per categorical or multi-valued attribute, the most frequent first."""
MIN_COUNT = 2
"""Rows in which a value must occur to enter a vocabulary."""
MULTI_LENGTH = 8
"""Values of a multi-valued attribute that a model reads."""


def side_spec(
    manifest: RepoManifest,
    entity: str,
    frame: pa.Table,
    *,
    surfaces: Sequence[str] = (),
    embeddings: tuple[EmbeddingVersion, ...] = (),
    histories: bool = False,
    id_buckets: int = 0,
    id_hashes: int = 1,
    sequence_buckets: int = 0,
    standardise: bool = True,
) -> InputSpec:
    """Inputs of the user or the Pin side, fitted on `frame`.

    Args:
        frame: Point-in-time frame with full feature names; it gives moments and vocabularies, so it must hold
            nothing later than the training cut-off. Without `standardise`, attribute columns are enough.
        surfaces: Known surfaces, for sequences.
        histories: Read the long histories too; upstream only.
        id_buckets: Buckets of the hashed entity key; 0 leaves the key out.
        id_hashes: Hash functions that read the key, a table each; sequences use the first alone.
        sequence_buckets: Buckets of the hashed Pin ids in sequences; 0 leaves sequences out.
        standardise: Centre and scale numbers by the frame's moments; otherwise the model normalises by itself.
    """
    activity, attributes = _activity(manifest, entity), _attributes(manifest, entity)
    history_columns = _history_columns(manifest) if histories and entity == "user" else []
    numbers = [*_number_columns(activity, attributes), *history_columns]
    sequences = entity == "user" and sequence_buckets > 0
    ids = [IdInput(column=contract.join_key(entity), buckets=id_buckets)] if id_buckets else []
    if sequences:
        lists = [*(column for column in activity if column.endswith("__recent_pins")), *history_columns]
        length = manifest.sequence_length
        ids += [IdInput(column=column, buckets=sequence_buckets, length=length) for column in lists]
    if id_buckets:
        key = contract.join_key(entity)
        ids += [IdInput(column=key, buckets=id_buckets, hash=number) for number in range(1, id_hashes)]
    return InputSpec(
        side=entity,
        dense=tuple(_dense_input(column, frame, standardise) for column in numbers),
        categorical=tuple(_categorical(c, frame) for c, item in attributes.items() if item.kind == "categorical"),
        multi_valued=(*_multi_valued(attributes, frame), *((_surface_input(manifest, surfaces),) if sequences else ())),
        ids=tuple(ids),
        lists=_sequence_lists() if sequences else (),
        list_length=manifest.sequence_length if sequences else 0,
        vectors=(*_attribute_vectors(attributes), *(_embedding(entity, version) for version in embeddings)),
    )


def context_spec(surfaces: Sequence[str]) -> InputSpec:
    """Inputs of the context side: surface, hour and weekday."""
    return InputSpec(
        side="context",
        categorical=(
            CategoricalInput(column="surface", vocabulary=tuple(sorted(surfaces))),
            CategoricalInput(column="hour", vocabulary=tuple(range(24))),
            CategoricalInput(column="weekday", vocabulary=tuple(range(7))),
        ),
    )


def _activity(manifest: RepoManifest, entity: str) -> dict[str, str]:
    """Columns of the activity view and their types."""
    view = contract.activity_view(entity)
    fields = contract.activity_fields(manifest, entity)
    return {contract.feature_reference(view, name): kind for name, kind in fields.items()}


def _attributes(manifest: RepoManifest, entity: str) -> dict[str, AttributeField]:
    """Columns of the attribute view and what they hold."""
    view = contract.attributes_view(entity)
    return {contract.feature_reference(view, item.name): item for item in manifest.attributes(entity)}


def _number_columns(activity: dict[str, str], attributes: dict[str, AttributeField]) -> list[str]:
    counted = [column for column, kind in activity.items() if kind in ("int64", "float")]
    return counted + [column for column, item in attributes.items() if item.kind == "dense"]


def _history_columns(manifest: RepoManifest) -> list[str]:
    return [contract.feature_reference(contract.history_view(name), "pin_ids") for name in manifest.histories]


def _dense_input(column: str, frame: pa.Table, standardise: bool) -> DenseInput:
    if not standardise:
        return DenseInput(column=column, log="_rate_" not in column, mean=0.0, scale=1.0)
    values = frame[column]
    if pa.types.is_list(values.type):
        values = pc.list_value_length(values)
    numbers = np.asarray(pc.cast(values, pa.float64()).to_numpy(), dtype=np.float64)
    known = numbers[np.isfinite(numbers)]
    rate = "_rate_" in column
    log = not rate and (len(known) == 0 or float(np.abs(known).max()) > 10.0 or "__hours_since_" in column)
    if len(known) == 0:
        return DenseInput(column=column, log=log, mean=0.0, scale=1.0)
    known = np.sign(known) * np.log1p(np.abs(known)) if log else known
    return DenseInput(column=column, log=log, mean=float(known.mean()), scale=max(float(known.std()), 1e-3))


def _vocabulary(values: pa.ChunkedArray | pa.Array) -> tuple[str, ...] | tuple[int, ...]:
    counts = pc.value_counts(pc.drop_null(values)).to_pylist()
    frequent = [(-item["counts"], item["values"]) for item in counts if item["counts"] >= MIN_COUNT]
    return tuple(value for _, value in sorted(frequent)[:MAX_VOCABULARY])


def _categorical(column: str, frame: pa.Table) -> CategoricalInput:
    return CategoricalInput(column=column, vocabulary=_vocabulary(frame[column]))


def _multi_valued(attributes: dict[str, AttributeField], frame: pa.Table) -> list[MultiValuedInput]:
    return [
        MultiValuedInput(column=column, vocabulary=_vocabulary(pc.list_flatten(frame[column])), length=MULTI_LENGTH)
        for column, item in attributes.items()
        if item.kind == "multi_valued"
    ]


def _surface_input(manifest: RepoManifest, surfaces: Sequence[str]) -> MultiValuedInput:
    column = contract.feature_reference("user_activity", "recent_surfaces")
    return MultiValuedInput(column=column, vocabulary=tuple(sorted(surfaces)), length=manifest.sequence_length)


def _sequence_lists() -> tuple[DenseInput, DenseInput]:
    """Actions, as the bitmasks they are, and standardised log ages, in this order."""
    actions, ages = (
        contract.feature_reference("user_activity", name) for name in ("recent_actions", "recent_ages_hours")
    )
    return (
        DenseInput(column=actions, log=False, mean=0.0, scale=1.0),
        DenseInput(column=ages, log=True, mean=3.0, scale=1.5),
    )


def _attribute_vectors(attributes: dict[str, AttributeField]) -> list[VectorInput]:
    return [VectorInput(column=column, dim=item.dim) for column, item in attributes.items() if item.kind == "vector"]


def _embedding(entity: str, version: EmbeddingVersion) -> VectorInput:
    view = contract.embedding_view(entity, version.model, version.version)
    return VectorInput(column=contract.feature_reference(view, contract.EMBEDDING_FIELD), dim=version.dim)
