"""One tower head per task: features to a logit.

Source: the task towers of Ma et al., "Multi-gate Mixture-of-Experts", KDD 2018, doi:10.1145/3219819.3220007.
Dims: B batch, H width of a task's features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from trainers.modules.mlp import hidden_stack


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskHeadsConfig:
    """Sizes of the heads, the same for every task."""

    input_dim: int
    """Width of a task's features, H."""
    tasks: tuple[str, ...]
    """Names of the tasks, in order."""
    hidden_dims: tuple[int, ...] = ()
    """Widths of hidden layers before the logit."""
    base_rates: tuple[float, ...] = ()
    """Positive rate of each task in training; a head's bias starts at its logit. Empty for 0.5 throughout."""
    dropout: float = 0.0
    """Share of hidden elements dropped in training."""

    def __post_init__(self) -> None:
        if self.input_dim < 1:
            raise ValueError(f"input_dim must be at least 1 (got {self.input_dim})")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be at least one, all different (got {self.tasks})")
        if self.base_rates and len(self.base_rates) != len(self.tasks):
            raise ValueError(f"base_rates must be one per task of {self.tasks} (got {self.base_rates})")
        if not all(0.0 < rate < 1.0 for rate in self.base_rates):
            raise ValueError(f"base_rates must lie strictly between 0 and 1 (got {self.base_rates})")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1) (got {self.dropout})")


class TaskHeads(nn.Module):
    """Independent heads; a head starts at its task's base rate, so that early steps don't go into the bias."""

    def __init__(self, config: TaskHeadsConfig) -> None:
        super().__init__()
        self.config = config
        dims = (config.input_dim, *config.hidden_dims)
        rates = config.base_rates or (0.5,) * len(config.tasks)
        self.heads = nn.ModuleList(
            nn.Sequential(*hidden_stack(dims, config.dropout), _logit(dims[-1], rate)) for rate in rates
        )

    def forward(self, features: Mapping[str, Float[Tensor, "B H"]]) -> dict[str, Float[Tensor, "B"]]:
        """Logit of each task."""
        return {task: head(features[task]).squeeze(1) for task, head in zip(self.config.tasks, self.heads, strict=True)}


def _logit(input_dim: int, base_rate: float) -> nn.Linear:
    linear = nn.Linear(input_dim, 1)
    nn.init.constant_(linear.bias, math.log(base_rate / (1.0 - base_rate)))
    return linear
