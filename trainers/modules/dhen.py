"""Stack of layers that each ensemble several interaction modules (DHEN).

Source: Zhang et al., "DHEN: A Deep and Hierarchical Ensemble Network for Large-Scale Click-Through Rate Prediction",
arXiv:2203.11014, section 3. DERM (arXiv:2509.04337) pairs two of MaskNet, Transformer and MLP.
Dims: B batch, F input fields, G output fields, D width of one field embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.dcn import CrossNetwork, CrossNetworkConfig
from trainers.modules.masknet import MaskNet, MaskNetConfig
from trainers.modules.mlp import MLP, MLPConfig
from trainers.modules.transformer import TransformerConfig, TransformerLayer


@dataclass(frozen=True, kw_only=True, slots=True)
class DHENConfig:
    """Shape of a DHEN and the sizes its interaction modules share."""

    num_fields: int
    """Number of input fields, F."""
    field_dim: int
    """Width of one field embedding, D."""
    output_fields: int
    """Number of fields after every layer, G."""
    layers: tuple[tuple[str, ...], ...] = (("masknet", "mlp"), ("transformer", "mlp"))
    """Interaction modules of each layer, of `masknet`, `transformer`, `mlp` and `dcn`."""
    ensemble: Literal["sum", "concat"] = "sum"
    """Add the modules' outputs, or concatenate them and project back to G fields."""
    hidden_dim: int = 64
    """Width of MaskBlocks, of hidden layers in `mlp` and of the Transformer's feed-forward."""
    num_heads: int = 4
    """Attention heads of `transformer`."""
    reduction_ratio: float = 1.0
    """Hidden width of a mask network over its input; at least 1."""
    cross_rank: int = 16
    """Rank of the matrices of `dcn`, at most F * D; 0 for full ones."""
    dropout: float = 0.0
    """Share of elements dropped inside `mlp` and `transformer` in training."""

    def __post_init__(self) -> None:
        for name in ("num_fields", "field_dim", "output_fields", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.layers or not all(self.layers):
            raise ValueError(f"layers must hold at least one layer of at least one module (got {self.layers})")
        unknown = sorted({name for layer in self.layers for name in layer} - set(_BUILDERS))
        if unknown:
            raise ValueError(f"layers must name modules of {sorted(_BUILDERS)} (got {unknown})")


class FieldProjection(nn.Module):
    """Linear map over the field axis: each output field is a weighted sum of input fields."""

    def __init__(self, num_fields: int, output_fields: int) -> None:
        super().__init__()
        self.weights = nn.Linear(num_fields, output_fields, bias=False)

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Projected fields."""
        projected: Tensor = self.weights(fields.transpose(1, 2))
        return projected.transpose(1, 2)


class CrossFields(nn.Module):
    """DCN V2 over the flattened fields, then a linear layer to the output fields."""

    def __init__(self, config: DHENConfig, num_fields: int) -> None:
        super().__init__()
        input_dim = num_fields * config.field_dim
        self.config = config
        self.cross = CrossNetwork(CrossNetworkConfig(input_dim=input_dim, rank=min(config.cross_rank, input_dim)))
        self.output = nn.Linear(input_dim, config.output_fields * config.field_dim)

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Output fields, not normalised."""
        flat: Tensor = self.output(self.cross(fields.flatten(1)))
        return flat.reshape(-1, self.config.output_fields, self.config.field_dim)


def _masknet(config: DHENConfig, num_fields: int) -> nn.Module:
    return MaskNet(
        MaskNetConfig(
            num_fields=num_fields,
            field_dim=config.field_dim,
            output_fields=config.output_fields,
            block_dim=config.hidden_dim,
            reduction_ratio=config.reduction_ratio,
        )
    )


def _mlp(config: DHENConfig, num_fields: int) -> nn.Module:
    return MLP(
        MLPConfig(
            num_fields=num_fields,
            field_dim=config.field_dim,
            output_fields=config.output_fields,
            hidden_dims=(config.hidden_dim,),
            dropout=config.dropout,
        )
    )


def _transformer(config: DHENConfig, num_fields: int) -> nn.Module:
    layer = TransformerLayer(
        TransformerConfig(
            model_dim=config.field_dim,
            num_heads=config.num_heads,
            hidden_dim=config.hidden_dim,
            dropout=config.dropout,
        )
    )
    if num_fields == config.output_fields:
        return layer
    return nn.Sequential(layer, FieldProjection(num_fields, config.output_fields))


_BUILDERS: dict[str, Callable[[DHENConfig, int], nn.Module]] = {
    "masknet": _masknet,
    "transformer": _transformer,
    "mlp": _mlp,
    "dcn": CrossFields,
}
MODULES = frozenset(_BUILDERS)
"""Names of the interaction modules that a layer may pair."""


class DHENLayer(nn.Module):
    """Norm(ensemble of the modules' outputs + shortcut); the shortcut projects when the number of fields changes."""

    def __init__(self, config: DHENConfig, names: tuple[str, ...], num_fields: int) -> None:
        super().__init__()
        self.interactions = nn.ModuleList(_BUILDERS[name](config, num_fields) for name in names)
        concat = config.ensemble == "concat"
        self.ensemble = FieldProjection(len(names) * config.output_fields, config.output_fields) if concat else None
        same = num_fields == config.output_fields
        self.shortcut = nn.Identity() if same else FieldProjection(num_fields, config.output_fields)
        self.norm = nn.LayerNorm(config.field_dim)

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Output fields, each normalised over its width."""
        outputs = [interaction(fields) for interaction in self.interactions]
        # Added one by one, and not stacked and summed, which costs an exported program an eighth of its time.
        mixed_BGD = (
            functools.reduce(torch.add, outputs) if self.ensemble is None else self.ensemble(torch.cat(outputs, dim=1))
        )
        normed: Tensor = self.norm(mixed_BGD + self.shortcut(fields))
        return normed


class DHEN(nn.Module):
    """DHEN layers in a row: the first maps F fields to G, the rest keep G."""

    def __init__(self, config: DHENConfig) -> None:
        super().__init__()
        widths = (config.num_fields, *(config.output_fields for _ in config.layers[1:]))
        self.layers = nn.Sequential(
            *(DHENLayer(config, names, width) for names, width in zip(config.layers, widths, strict=True))
        )

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Output fields, each normalised over its width."""
        mixed: Tensor = self.layers(fields)
        return mixed
