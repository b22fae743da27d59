"""Progressive layered extraction (PLE): experts of each task beside shared ones, in levels.

Source: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
Recommendations", RecSys 2020, doi:10.1145/3383313.3412236, section 4.2.
Dims: B batch, K input width, X experts of a group, H output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class PLEConfig:
    """Sizes of a PLE."""

    input_dim: int
    """Width of the input, K."""
    tasks: tuple[str, ...]
    """Names of the tasks; each has experts and gates of its own."""
    num_experts: int = 2
    """Experts, X, of each task, and shared ones."""
    num_levels: int = 2
    """Levels of experts; above the first, they read what the gates below mixed."""
    output_dim: int = 32
    """Width of an expert's output, H, on every level."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "num_experts", "num_levels", "output_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be at least one, all different (got {self.tasks})")


class _Level(nn.Module):
    """One level: a task mixes its own and the shared experts, the shared group (the last one) mixes all."""

    def __init__(self, config: PLEConfig, input_dim: int, *, top: bool) -> None:
        super().__init__()
        self.shape = (config.num_experts, config.output_dim)
        num_groups = len(config.tasks) + 1
        width = config.num_experts * config.output_dim
        self.experts = nn.ModuleList(nn.Linear(input_dim, width) for _ in range(num_groups))
        self.gates = nn.ModuleList(nn.Linear(input_dim, 2 * config.num_experts, bias=False) for _ in config.tasks)
        self.shared_gate = None if top else nn.Linear(input_dim, num_groups * config.num_experts, bias=False)

    def forward(self, inputs: Sequence[Float[Tensor, "B K"]]) -> list[Float[Tensor, "B H"]]:
        """What each task, and below the top the shared group, goes on with."""
        outputs = [
            torch.relu(expert(each)).reshape(-1, *self.shape) for expert, each in zip(self.experts, inputs, strict=True)
        ]
        mixed = [
            _mixed(gate(each), torch.cat([own_BXH, outputs[-1]], dim=1))
            for gate, each, own_BXH in zip(self.gates, inputs, outputs, strict=False)
        ]
        if self.shared_gate is not None:
            mixed.append(_mixed(self.shared_gate(inputs[-1]), torch.cat(outputs, dim=1)))
        return mixed


def _mixed(gate: Float[Tensor, "B X"], experts: Float[Tensor, "B X H"]) -> Float[Tensor, "B H"]:
    return (gate.softmax(dim=1)[:, None] @ experts).squeeze(1)


class PLE(nn.Module):
    """Levels of experts, the first of which reads the input for every group."""

    def __init__(self, config: PLEConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.input_dim, *(config.output_dim for _ in range(config.num_levels - 1)))
        tops = [level == config.num_levels - 1 for level in range(config.num_levels)]
        self.levels = nn.ModuleList(_Level(config, width, top=top) for width, top in zip(widths, tops, strict=True))

    def forward(self, inputs: Float[Tensor, "B K"]) -> dict[str, Float[Tensor, "B H"]]:
        """Each task's mixture on the top level."""
        groups = [inputs] * (len(self.config.tasks) + 1)
        for level in self.levels:
            groups = level(groups)
        return dict(zip(self.config.tasks, groups, strict=True))
