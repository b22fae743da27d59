"""Multi-gate mixture of experts (MMoE).

Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018,
doi:10.1145/3219819.3220007, section 4.2, equations 6 to 8.
Dims: B batch, K input width, X experts, T tasks, J hidden width of an expert, H output width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class MMoEConfig:
    """Sizes of an MMoE."""

    input_dim: int
    """Width of the input, K."""
    tasks: tuple[str, ...]
    """Names of the tasks; each has a gate of its own."""
    num_experts: int = 4
    """Experts, X, shared by all tasks."""
    hidden_dim: int = 64
    """Hidden width of an expert, J."""
    output_dim: int = 32
    """Width of an expert's output, H."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "num_experts", "hidden_dim", "output_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be at least one, all different (got {self.tasks})")


class MMoE(nn.Module):
    """Two-layer experts mixed per task by a softmax gate on the input.

    All experts run as one wide matrix product each layer, all gates as one more.
    """

    def __init__(self, config: MMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.expert_hidden = nn.Linear(config.input_dim, config.num_experts * config.hidden_dim)
        bound = config.hidden_dim**-0.5
        shape = (config.num_experts, config.hidden_dim, config.output_dim)
        self.expert_weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.expert_bias = nn.Parameter(torch.zeros(config.num_experts, config.output_dim))
        self.gates = nn.Linear(config.input_dim, len(config.tasks) * config.num_experts, bias=False)

    def forward(self, inputs: Float[Tensor, "B K"]) -> dict[str, Float[Tensor, "B H"]]:
        """Each task's mixture of the experts' outputs."""
        mixed_BTH = self.gate(inputs) @ self.experts(inputs)
        return dict(zip(self.config.tasks, mixed_BTH.unbind(dim=1), strict=True))

    def experts(self, inputs: Float[Tensor, "B K"]) -> Float[Tensor, "B X H"]:
        """Outputs of all experts, non-negative."""
        hidden_BXJ = F.relu(self.expert_hidden(inputs)).reshape(-1, self.config.num_experts, self.config.hidden_dim)
        return F.relu(torch.einsum("bxj,xjh->bxh", hidden_BXJ, self.expert_weight) + self.expert_bias)

    def gate(self, inputs: Float[Tensor, "B K"]) -> Float[Tensor, "B T X"]:
        """Weight of each expert for each task; the weights of a task add up to 1."""
        gates: Tensor = self.gates(inputs).reshape(-1, len(self.config.tasks), self.config.num_experts)
        return gates.softmax(dim=-1)
