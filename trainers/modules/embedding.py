"""Encoded features of one side of a model to tokens of one width.

Input names and layouts are those of `feature_repo.encoding.encode`; sizes arrive as plain numbers, so that model
files need not know the feature repo.
Source: the preprocessing of DERM, arXiv:2509.04337 (embedding lookup for ids and categories, normalised dense values,
pre-trained vectors); masking of ids, so that content carries a new entity, after Volkovs, Yu and Poutanen, "DropoutNet:
Addressing Cold Start in Recommender Systems", NeurIPS 2017.
Dims: B batch, F tokens, X dense tokens, D width of a token, M width of the dense input, L longest list, P width of a
Pin's vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainers.parallel import uniform_of_rows

INIT_STD = 0.05
"""Standard deviation of fresh embedding rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldEmbeddingConfig:
    """Sizes of one side's encoded inputs; without any input a side cannot be embedded."""

    side: str
    """Prefix of the input names: `user`, `pin` or `context`."""
    field_dim: int
    """Width of a token, D."""
    num_dense: int = 0
    """Dense columns; the input is twice as wide, M (values, then missing flags)."""
    dense_tokens: int = 1
    """Tokens that all dense columns together become."""
    dense_clip: float = 8.0
    """Standardised dense values are cut to ± this, so that one outlier cannot drown an example."""
    categorical_sizes: tuple[int, ...] = ()
    """Indices of each categorical column, 0 (missing) included."""
    multi_sizes: tuple[int, ...] = ()
    """Indices of each multi-valued column, 0 (padding) included; 0 skips a column that another module reads."""
    id_buckets: tuple[int, ...] = ()
    """Buckets of each `{side}_id_{i}`, 0 (missing) included; 0 skips an id list, which `SequenceEmbedding` reads."""
    sparse_ids: bool = False
    """Give id tables row-wise gradients; `MixedAdam` knows what to do with them."""
    min_id_count: int = 0
    """Rows that `count_ids` must have seen an id in before its own row of a table is read; 0 to read it at once."""
    vector_dims: tuple[int, ...] = ()
    """Width V of each vector; the input is V + 1 wide (values, then whether it was present)."""
    vector_scales: tuple[float, ...] = ()
    """Factor on each vector's values, which brings them to the size of other inputs; empty for 1 throughout."""
    id_dropout: float = 0.0
    """Share of training rows whose ids are all replaced by bucket 0, so that content carries a new entity."""

    def __post_init__(self) -> None:
        if self.field_dim < 1:
            raise ValueError(f"field_dim must be at least 1 (got {self.field_dim})")
        if self.num_dense < 0 or self.dense_tokens < 1:
            raise ValueError(
                f"num_dense must be at least 0 and dense_tokens at least 1 (got {self.num_dense}, {self.dense_tokens})"
            )
        if not 0.0 <= self.id_dropout < 1.0:
            raise ValueError(f"id_dropout must be in [0, 1) (got {self.id_dropout})")
        if self.vector_scales and len(self.vector_scales) != len(self.vector_dims):
            raise ValueError(
                f"vector_scales must be one for each vector or none (got {len(self.vector_scales)} for "
                f"{len(self.vector_dims)} vectors)"
            )
        if self.min_id_count < 0:
            raise ValueError(f"min_id_count must be at least 0 (got {self.min_id_count})")
        if self.dense_clip <= 0.0:
            raise ValueError(f"dense_clip must be positive (got {self.dense_clip})")
        self._check_sizes()

    def _check_sizes(self) -> None:
        for name, least in (("categorical_sizes", 1), ("multi_sizes", 0), ("id_buckets", 0), ("vector_dims", 1)):
            if any(size < least for size in getattr(self, name)):
                raise ValueError(f"{name} must all be at least {least} (got {getattr(self, name)})")
        if self.num_fields == 0:
            raise ValueError(f"side {self.side!r} must have at least one input (got none)")

    @property
    def num_fields(self) -> int:
        """Tokens that come out, F."""
        dense = self.dense_tokens if self.num_dense else 0
        lists = sum(size > 0 for size in self.multi_sizes) + sum(size > 0 for size in self.id_buckets)
        return dense + len(self.categorical_sizes) + lists + len(self.vector_dims)


def _table(size: int, dim: int, *, sparse: bool = False) -> nn.Embedding:
    table = nn.Embedding(size, dim, sparse=sparse)
    nn.init.normal_(table.weight, std=INIT_STD)
    return table


def _id_table(config: FieldEmbeddingConfig, size: int) -> nn.Embedding:
    if config.min_id_count:
        return CountedTable(size, config.field_dim, min_count=config.min_id_count, sparse=config.sparse_ids)
    return _table(size, config.field_dim, sparse=config.sparse_ids)


class CountedTable(nn.Embedding):
    """A table that answers with row 0 for an index that was counted less often than asked for."""

    counts: Tensor

    def __init__(self, size: int, dim: int, *, min_count: int, sparse: bool) -> None:
        super().__init__(size, dim, sparse=sparse)
        nn.init.normal_(self.weight, std=INIT_STD)
        self.min_count = min_count
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int32))

    @torch.no_grad()
    def count(self, indices: Int[Tensor, "B"]) -> None:
        """Note that each index was in one more row."""
        self.counts.index_add_(0, indices, torch.ones_like(indices, dtype=torch.int32))

    def forward(self, input: Tensor) -> Tensor:
        """Rows of the table, of any shape of indices."""
        known = self.counts[input] >= self.min_count
        rows: Tensor = super().forward(input * known)
        return rows


class FieldEmbedding(nn.Module):
    """Tokens in the order dense, categorical, multi-valued, ids, vectors."""

    categorical_offsets: Tensor

    def __init__(self, config: FieldEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.field_dim
        self.dense = nn.Linear(2 * config.num_dense, config.dense_tokens * dim) if config.num_dense else None
        self.categorical = _table(sum(config.categorical_sizes), dim) if config.categorical_sizes else None
        starts = torch.tensor((0, *config.categorical_sizes[:-1])).cumsum(0)
        self.register_buffer("categorical_offsets", starts, persistent=False)
        self.multi = nn.ModuleDict({str(i): _table(size, dim) for i, size in enumerate(config.multi_sizes) if size})
        self.ids = nn.ModuleDict({str(i): _id_table(config, size) for i, size in enumerate(config.id_buckets) if size})
        self.vectors = nn.ModuleList(nn.Linear(width + 1, dim) for width in config.vector_dims)

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B F D"]:
        """Tokens of the side; inputs of other sides are not looked at.

        Raises:
            KeyError: An input that the config declares is absent.
        """
        side = self.config.side
        tokens: list[Tensor] = []
        if self.dense is not None:
            tokens.append(self._dense(self.dense, inputs[f"{side}_dense"]))
        if self.categorical is not None:
            tokens.append(self.categorical(inputs[f"{side}_categorical"] + self.categorical_offsets))
        tokens += [masked_mean(table, inputs[f"{side}_multi_{i}"])[:, None] for i, table in self.multi.items()]
        tokens += self._ids(inputs)
        tokens += [linear(self._vector(i, inputs))[:, None] for i, linear in enumerate(self.vectors)]
        return torch.cat(tokens, dim=1)

    def _vector(self, index: int, inputs: Mapping[str, Tensor]) -> Tensor:
        """Scaled values and the flag of a vector [B, V + 1]."""
        vector = inputs[f"{self.config.side}_vector_{index}"]
        scale = self.config.vector_scales[index] if self.config.vector_scales else 1.0
        return vector if scale == 1.0 else torch.cat([scale * vector[:, :-1], vector[:, -1:]], dim=1)

    def count_ids(self, inputs: Mapping[str, Tensor]) -> None:
        """Count the ids of rows that are about to be trained on, where the config asks for a number of them."""
        for i, table in self.ids.items():
            if isinstance(table, CountedTable):
                table.count(inputs[f"{self.config.side}_id_{i}"])

    def _dense(self, linear: nn.Module, dense: Float[Tensor, "B M"]) -> Float[Tensor, "B X D"]:
        clipped = dense.clamp(-self.config.dense_clip, self.config.dense_clip)
        flat: Tensor = linear(clipped)
        return flat.reshape(-1, self.config.dense_tokens, self.config.field_dim)

    def _ids(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        ids = {i: inputs[f"{self.config.side}_id_{i}"] for i in self.ids}
        if self.training and self.config.id_dropout and ids:
            first = next(iter(ids.values()))
            kept = uniform_of_rows(first) >= self.config.id_dropout
            ids = {i: values * kept for i, values in ids.items()}
        return [table(ids[i])[:, None] for i, table in self.ids.items()]


def masked_mean(table: nn.Module, indices: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """Mean embedding of the non-zero indices of each row; a row without any gets the table's row 0."""
    present_BL = indices > 0
    empty_B1 = ~present_BL.any(dim=1, keepdim=True)
    weights_BL = (present_BL | empty_B1).to(torch.float32)
    mean_B1D = torch.bmm((weights_BL / weights_BL.sum(dim=1, keepdim=True))[:, None, :], table(indices))
    return mean_B1D.squeeze(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceEmbeddingConfig:
    """Sizes of an engagement sequence, oldest first and padded at the end."""

    pin_dim: int
    """Width of a Pin's vector in the shared table."""
    model_dim: int
    """Width of a sequence token, D."""
    max_length: int
    """Longest sequence; positions are counted back from the newest."""
    num_actions: int = 0
    """Bits of the action bitmask, one for each label and conversion kind; 0 without actions."""
    num_surfaces: int = 0
    """Indices of a surface, 0 (missing) included; 0 without surfaces."""
    use_ages: bool = False
    """Whether ages accompany the Pins."""

    def __post_init__(self) -> None:
        for name, least in (("pin_dim", 1), ("model_dim", 1), ("max_length", 1), ("num_surfaces", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least} (got {getattr(self, name)})")
        if not 0 <= self.num_actions <= 24:
            # Above 24 bits a bitmask no longer survives the float32 of an encoded number list.
            raise ValueError(f"num_actions must be in 0..24 (got {self.num_actions})")


class SequenceEmbedding(nn.Module):
    """What was engaged with, how, where, how long ago and how many engagements ago, added up per position.

    The Pin table is shared with the Pin tower, so its vectors are an argument and not a weight of this module.
    """

    action_values: Tensor
    age_centres: Tensor

    def __init__(self, config: SequenceEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.model_dim
        self.pin = nn.Linear(config.pin_dim, dim)
        self.position = _table(config.max_length, dim)
        self.action = nn.Linear(config.num_actions, dim, bias=False) if config.num_actions else None
        self.surface = _table(config.num_surfaces, dim) if config.num_surfaces else None
        self.age = nn.Linear(len(_AGE_CENTRES), dim, bias=False) if config.use_ages else None
        self.register_buffer("action_values", 2 ** torch.arange(config.num_actions), persistent=False)
        self.register_buffer("age_centres", torch.tensor(_AGE_CENTRES), persistent=False)

    def forward(
        self,
        pin_vectors: Float[Tensor, "B L P"],
        pins: Int[Tensor, "B L"],
        actions: Int[Tensor, "B L"] | None = None,
        surfaces: Int[Tensor, "B L"] | None = None,
        ages: Float[Tensor, "B L"] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """Sequence tokens, and which of them are present.

        Args:
            pin_vectors: Rows of the shared table for `pins`.
            pins: Buckets, 0 for padding.
            actions: Bitmask of labels, bit i for label i.
            surfaces: Surface indices, 0 for missing.
            ages: Standardised log age.

        Raises:
            ValueError: An input that the config declares was not given, or one was given that it doesn't declare.
        """
        for name, module, values in (
            ("actions", self.action, actions),
            ("surfaces", self.surface, surfaces),
            ("ages", self.age, ages),
        ):
            if (module is None) != (values is None):
                declared, given = module is not None, values is not None
                raise ValueError(f"{name} must be given exactly when declared (declared {declared}, given {given})")
        present = pins > 0
        tokens = self.pin(pin_vectors) + self.position(self._positions(present))
        if self.action is not None and actions is not None:
            tokens = tokens + self.action(self._action_bits(actions))
        if self.surface is not None and surfaces is not None:
            tokens = tokens + self.surface(surfaces)
        if self.age is not None and ages is not None:
            tokens = tokens + self.age(self._age_bumps(ages))
        return tokens * present[:, :, None].to(tokens.dtype), present

    def _positions(self, present: Tensor) -> Tensor:
        from_newest = present.flip(1).cumsum(dim=1).flip(1) - 1
        return from_newest.clamp(0, self.config.max_length - 1)

    def _action_bits(self, actions: Tensor) -> Tensor:
        # ONNX has no signed bit shift: divide instead.
        return (actions[:, :, None].div(self.action_values, rounding_mode="floor") % 2).to(self.age_centres.dtype)

    def _age_bumps(self, ages: Tensor) -> Tensor:
        distance = (ages.clamp(_AGE_CENTRES[0], _AGE_CENTRES[-1])[:, :, None] - self.age_centres).abs()
        return F.relu(1.0 - distance)


_AGE_CENTRES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Centres of triangular bumps over a standardised age: a piecewise linear function of it is then a linear one."""
