"""Multi-layer perceptron over flattened tokens.

Source: the MLP interaction module of Zhang et al., "DHEN", arXiv:2203.11014, section 3.
Dims: B batch, F fields, D width of one field embedding, G output fields.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


def hidden_stack(dims: tuple[int, ...], dropout: float) -> list[nn.Module]:
    """Linear, ReLU and dropout between each two neighbouring widths of `dims`."""
    stack: list[nn.Module] = []
    for before, after in itertools.pairwise(dims):
        stack += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return stack


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPConfig:
    """Sizes of an MLP from tokens to tokens."""

    num_fields: int
    """Number of input fields, F."""
    field_dim: int
    """Width of one field embedding, D; that of the output too."""
    output_fields: int
    """Number of output fields, G."""
    hidden_dims: tuple[int, ...] = (64,)
    """Widths of the hidden layers; empty for one linear layer."""
    dropout: float = 0.0
    """Share of hidden elements dropped in training."""

    def __post_init__(self) -> None:
        for name in ("num_fields", "field_dim", "output_fields"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if any(width < 1 for width in self.hidden_dims):
            raise ValueError(f"hidden_dims must all be at least 1 (got {self.hidden_dims})")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1) (got {self.dropout})")


class MLP(nn.Module):
    """All fields together through hidden layers, cut into output fields again."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        dims = (config.num_fields * config.field_dim, *config.hidden_dims)
        self.hidden = nn.Sequential(*hidden_stack(dims, config.dropout))
        self.output = nn.Linear(dims[-1], config.output_fields * config.field_dim)

    def forward(self, fields: Float[Tensor, "B F D"]) -> Float[Tensor, "B G D"]:
        """Output fields, not normalised."""
        flat: Tensor = self.output(self.hidden(fields.flatten(1)))
        return flat.reshape(-1, self.config.output_fields, self.config.field_dim)
