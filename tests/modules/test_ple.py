"""Progressive layered extraction: who reads whose experts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainers.modules.ple import PLE, PLEConfig


def ple(num_levels: int) -> PLE:
    """Two tasks, an expert a group, one number in and out: expert weights 2, 3 and 5 (shared), gates flat."""
    net = PLE(PLEConfig(input_dim=1, tasks=("a", "b"), num_experts=1, num_levels=num_levels, output_dim=1))
    for level in net.levels:
        for weight, expert in zip((2.0, 3.0, 5.0), level.experts, strict=True):
            torch.nn.init.constant_(expert.weight, weight)
            torch.nn.init.zeros_(expert.bias)
        for gate in [*level.gates, *([level.shared_gate] if level.shared_gate is not None else [])]:
            torch.nn.init.zeros_(gate.weight)
    return net


@pytest.mark.parametrize(
    ("num_levels", "a", "b"),
    [
        # (2 + 5) / 2 and (3 + 5) / 2.
        (1, 3.5, 4.0),
        # The shared group goes on with (2 + 3 + 5) / 3, so a has (2 * 3.5 + 5 * 10 / 3) / 2 and b has 3 * 4 in place.
        (2, (7.0 + 50.0 / 3.0) / 2.0, (12.0 + 50.0 / 3.0) / 2.0),
    ],
)
def test_tasks_mix_their_own_experts_with_the_shared_ones(num_levels: int, a: float, b: float) -> None:
    mixed = ple(num_levels)(torch.ones(1, 1))
    assert {name: float(value) for name, value in mixed.items()} == pytest.approx({"a": a, "b": b})


def test_gate_chooses_among_own_and_shared_experts() -> None:
    net = ple(1)
    with torch.no_grad():
        net.levels[0].gates[0].weight.copy_(torch.tensor([[0.0], [100.0]]))
    assert float(net(torch.ones(1, 1))["a"]) == pytest.approx(5.0)


def _gradients(num_levels: int) -> list[Tensor | None]:
    """Gradient of task a by the experts of a, b and shared on the lowest level."""
    net = ple(num_levels)
    net(torch.ones(1, 1))["a"].sum().backward()
    return [expert.weight.grad for expert in net.levels[0].experts]


def test_experts_of_another_task_reach_a_task_only_from_the_second_level_on() -> None:
    own, other, shared = _gradients(1)
    assert own is not None
    assert shared is not None
    assert other is None
    assert all(gradient is not None for gradient in _gradients(2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_levels": 0}, "num_levels must be at least 1"), ({"tasks": ("a", "a")}, "all different")],
)
def test_config_refuses(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PLEConfig(**{"input_dim": 2, "tasks": ("a",), **changes})  # type: ignore[arg-type]
