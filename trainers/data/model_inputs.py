"""Sizes of a model's sides, read off the inputs that were fitted for it."""

from __future__ import annotations

from collections.abc import Sequence

from feature_repo.encoding import InputSpec
from trainers.modules.embedding import FieldEmbeddingConfig
from trainers.modules.side import SequenceInputs, SideConfig


def field_config(
    spec: InputSpec,
    *,
    field_dim: int,
    id_dropout: float = 0.0,
    sparse_ids: bool = False,
    min_id_count: int = 0,
    unit_vectors: Sequence[str] = (),
) -> FieldEmbeddingConfig:
    """Sizes of everything but sequences; id lists and their surfaces are left to the sequences.

    Args:
        unit_vectors: Columns with vectors of unit length, which the model brings to unit variance.
    """
    surfaces = _surface_index(spec)
    return FieldEmbeddingConfig(
        side=spec.side,
        field_dim=field_dim,
        num_dense=len(spec.dense),
        dense_tokens=min(4, max(1, len(spec.dense) // 8)),
        categorical_sizes=tuple(item.size for item in spec.categorical),
        multi_sizes=tuple(0 if i == surfaces else item.size for i, item in enumerate(spec.multi_valued)),
        id_buckets=tuple(0 if item.length else item.buckets for item in spec.ids),
        vector_dims=tuple(item.dim for item in spec.vectors),
        vector_scales=tuple(item.dim**0.5 if item.column in unit_vectors else 1.0 for item in spec.vectors),
        id_dropout=id_dropout,
        sparse_ids=sparse_ids,
        min_id_count=min_id_count,
    )


def side_config(
    spec: InputSpec,
    *,
    field_dim: int,
    num_labels: int,
    id_dropout: float = 0.0,
    sparse_ids: bool = False,
    min_id_count: int = 0,
    normalise_dense: bool = False,
    sequence_layers: int = 0,
    unit_vectors: Sequence[str] = (),
) -> SideConfig:
    """Sizes of one side.

    Args:
        num_labels: Bits of the action bitmask, one for each label known with the impression.
        unit_vectors: Columns with vectors of unit length, which the model brings to unit variance.
    """
    lists = [i for i, item in enumerate(spec.ids) if item.length]
    return SideConfig(
        fields=field_config(
            spec,
            field_dim=field_dim,
            id_dropout=id_dropout,
            sparse_ids=sparse_ids,
            min_id_count=min_id_count,
            unit_vectors=unit_vectors,
        ),
        sequences=tuple(_sequence(spec, i, num_labels) for i in lists),
        normalise_dense=normalise_dense,
        sequence_layers=sequence_layers,
    )


def _surface_index(spec: InputSpec) -> int | None:
    """Position of the surfaces that accompany a sequence: the last multi-valued input."""
    return len(spec.multi_valued) - 1 if spec.list_length else None


def _sequence(spec: InputSpec, index: int, num_labels: int) -> SequenceInputs:
    side, item = spec.side, spec.ids[index]
    pins = f"{side}_id_{index}"
    surfaces = _surface_index(spec)
    if surfaces is None or not item.column.endswith("__recent_pins"):
        return SequenceInputs(pins=pins, length=item.length)
    return SequenceInputs(
        pins=pins,
        length=item.length,
        actions=f"{side}_list_0",
        num_actions=num_labels,
        surfaces=f"{side}_multi_{surfaces}",
        num_surfaces=spec.multi_valued[surfaces].size,
        ages=f"{side}_list_1",
    )
