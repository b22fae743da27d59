"""Instance-guided masking of field embeddings (MaskNet).

Source: Wang, She and Zhang, "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
Instance-Guided Mask", DLP-KDD 2021, arXiv:2102.07619, section 3.
Dims: B batch, F fields, D width of one field embedding, K = F * D, H width of a block's output, N width of what a
mask gates, G output fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskBlockConfig:
    """Sizes of one MaskBlock on field embeddings."""

    num_fields: int
    """Number of input fields, F."""
    field_dim: int
    """Width of one field embedding, D."""
    output_dim: int
    """Width of the block's output, H."""
    reduction_ratio: float = 2.0
    """Hidden width of the mask network over K; the paper's r, at least 1."""

    def __post_init__(self) -> None:
        for name in ("num_fields", "field_dim", "output_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if self.reduction_ratio < 1.0:
            raise ValueError(f"reduction_ratio must be at least 1.0 (got {self.reduction_ratio})")

    @property
    def input_dim(self) -> int:
        """Width of the flattened fields, K."""
        return self.num_fields * self.field_dim


class InstanceMask(nn.Module):
    """Mask over N elements computed from all of an example's fields."""

    def __init__(self, *, input_dim: int, masked_dim: int, reduction_ratio: float) -> None:
        super().__init__()
        hidden_dim = round(input_dim * reduction_ratio)
        self.aggregation = nn.Linear(input_dim, hidden_dim)
        self.projection = nn.Linear(hidden_dim, masked_dim)

    def forward(self, flat: Float[Tensor, "B K"]) -> Float[Tensor, "B N"]:
        """Unbounded mask; the paper uses no squashing function."""
        mask: Tensor = self.projection(F.relu(self.aggregation(flat)))
        return mask


class MaskBlock(nn.Module):
    """Gate every embedding element by a mask computed from the whole example.

    The mask sees all fields at once, so one field can mute another before the linear layer mixes them.
    """

    def __init__(self, config: MaskBlockConfig) -> None:
        super().__init__()
        self.mask = InstanceMask(
            input_dim=config.input_dim, masked_dim=config.input_dim, reduction_ratio=config.reduction_ratio
        )
        self.field_norm = nn.LayerNorm(config.field_dim)
        self.output = nn.Sequential(
            nn.Linear(config.input_dim, config.output_dim, bias=False), nn.LayerNorm(config.output_dim), nn.ReLU()
        )

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B H"]:
        """Non-negative features of the masked, normalised fields."""
        mask_BK = self.mask(fields.flatten(1))
        hidden: Tensor = self.output(mask_BK * self.field_norm(fields).flatten(1))
        return hidden


class HiddenMaskBlock(nn.Module):
    """MaskBlock that gates the output of an earlier block; the mask still comes from the fields."""

    def __init__(self, *, input_dim: int, hidden_dim: int, reduction_ratio: float) -> None:
        super().__init__()
        self.mask = InstanceMask(input_dim=input_dim, masked_dim=hidden_dim, reduction_ratio=reduction_ratio)
        self.output = nn.Sequential(nn.Linear(hidden_dim, hidden_dim, bias=False), nn.LayerNorm(hidden_dim), nn.ReLU())

    def forward(self, fields: Float[Tensor, "B F D"], hidden: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """Non-negative features of the masked hidden layer."""
        masked: Tensor = self.output(self.mask(fields.flatten(1)) * hidden)
        return masked


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskNetConfig:
    """Arrangement of MaskBlocks over field embeddings."""

    num_fields: int
    """Number of input fields, F."""
    field_dim: int
    """Width of one field embedding, D."""
    output_fields: int
    """Number of output fields, G; each is D wide."""
    num_blocks: int = 1
    """MaskBlocks side by side (parallel) or in a row (serial)."""
    block_dim: int = 64
    """Width of each block's output, H."""
    arrangement: Literal["parallel", "serial"] = "parallel"
    """The paper's two models: blocks concatenated, or each gating the one before."""
    reduction_ratio: float = 1.0
    """Hidden width of each mask network over K; at least 1."""

    def __post_init__(self) -> None:
        for name in ("output_fields", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        self.block()

    def block(self) -> MaskBlockConfig:
        """Config of a block on the fields."""
        return MaskBlockConfig(
            num_fields=self.num_fields,
            field_dim=self.field_dim,
            output_dim=self.block_dim,
            reduction_ratio=self.reduction_ratio,
        )


class MaskNet(nn.Module):
    """Fields to fields through MaskBlocks and one linear layer."""

    def __init__(self, config: MaskNetConfig) -> None:
        super().__init__()
        self.config = config
        parallel = config.arrangement == "parallel"
        self.blocks = nn.ModuleList(MaskBlock(config.block()) for _ in range(config.num_blocks if parallel else 1))
        self.serial_blocks = nn.ModuleList(
            HiddenMaskBlock(
                input_dim=config.block().input_dim, hidden_dim=config.block_dim, reduction_ratio=config.reduction_ratio
            )
            for _ in range(0 if parallel else config.num_blocks - 1)
        )
        self.output = nn.Linear(config.block_dim * len(self.blocks), config.output_fields * config.field_dim)

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Output fields, not normalised."""
        hidden_BH = torch.cat([block(fields) for block in self.blocks], dim=1)
        for block in self.serial_blocks:
            hidden_BH = block(fields, hidden_BH)
        mixed: Tensor = self.output(hidden_BH)
        return mixed.reshape(-1, self.config.output_fields, self.config.field_dim)
