"""MMoE and task heads against numbers worked by hand, and the module contract."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.modules.contract import BATCH, ModuleContract
from trainers.modules.heads import TaskHeads, TaskHeadsConfig
from trainers.modules.mmoe import MMoE, MMoEConfig


class TestMMoE(ModuleContract):
    def make(self) -> nn.Module:
        return MMoE(MMoEConfig(input_dim=7, tasks=("click", "like"), num_experts=3, hidden_dim=5, output_dim=4))

    def inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(BATCH, 7, generator=torch.Generator().manual_seed(0)),)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(4,), (4,)]


class TestTaskHeads(ModuleContract):
    def make(self) -> nn.Module:
        return TaskHeads(TaskHeadsConfig(input_dim=4, tasks=("click", "like"), hidden_dims=(8,), dropout=0.1))

    def inputs(self) -> tuple[dict[str, Tensor], ...]:
        random = torch.Generator().manual_seed(0)
        return ({task: torch.randn(BATCH, 4, generator=random) for task in ("click", "like")},)

    def shapes(self) -> list[tuple[int, ...]]:
        return [(), ()]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # The experts always answer 1 and 3. Gate logits are (x log 3, 0) for `a` and (0, x log 3) for `b`.
        (0.0, {"a": 2.0, "b": 2.0}),
        (1.0, {"a": 0.75 * 1 + 0.25 * 3, "b": 0.25 * 1 + 0.75 * 3}),
        (2.0, {"a": 0.9 * 1 + 0.1 * 3, "b": 0.1 * 1 + 0.9 * 3}),
    ],
)
def test_mmoe_matches_hand_worked_numbers(value: float, expected: dict[str, float]) -> None:
    mmoe = MMoE(MMoEConfig(input_dim=1, tasks=("a", "b"), num_experts=2, hidden_dim=1, output_dim=1))
    with torch.no_grad():
        mmoe.expert_weight.zero_()
        mmoe.expert_bias.copy_(torch.tensor([[1.0], [3.0]]))
        mmoe.gates.weight.copy_(math.log(3.0) * torch.tensor([[1.0], [0.0], [0.0], [1.0]]))
    mixed = mmoe(torch.tensor([[value]]))
    assert {task: output.item() for task, output in mixed.items()} == pytest.approx(expected)


def test_mmoe_experts_are_two_relu_layers_each() -> None:
    mmoe = MMoE(MMoEConfig(input_dim=1, tasks=("a",), num_experts=2, hidden_dim=2, output_dim=1))
    with torch.no_grad():
        # Expert 0 sees relu(x), relu(-x); expert 1 sees relu(2x), relu(x + 1).
        mmoe.expert_hidden.weight.copy_(torch.tensor([[1.0], [-1.0], [2.0], [1.0]]))
        mmoe.expert_hidden.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        mmoe.expert_weight.copy_(torch.tensor([[[1.0], [1.0]], [[1.0], [-3.0]]]))
        mmoe.expert_bias.copy_(torch.tensor([[0.5], [0.0]]))
    # x = 3: 3 + 0 + 0.5 and relu(6 - 12); x = -2: 0 + 2 + 0.5 and relu(0 - 0).
    expected = torch.tensor([[[3.5], [0.0]], [[2.5], [0.0]]])
    torch.testing.assert_close(mmoe.experts(torch.tensor([[3.0], [-2.0]])), expected)


def test_mmoe_gates_add_up_to_one() -> None:
    mmoe = MMoE(MMoEConfig(input_dim=3, tasks=("a", "b")))
    gates = mmoe.gate(torch.randn(BATCH, 3))
    torch.testing.assert_close(gates.sum(dim=-1), torch.ones(BATCH, 2))


def test_task_heads_start_at_their_base_rates() -> None:
    heads = TaskHeads(TaskHeadsConfig(input_dim=4, tasks=("click", "like"), base_rates=(0.2, 0.01)))
    rates = {
        task: logit.sigmoid().item()
        for task, logit in heads(dict.fromkeys(("click", "like"), torch.zeros(1, 4))).items()
    }
    assert rates == pytest.approx({"click": 0.2, "like": 0.01}, rel=1e-5)


@pytest.mark.parametrize("tasks", [(), ("a", "a")])
def test_mmoe_and_heads_refuse_no_or_repeated_tasks(tasks: tuple[str, ...]) -> None:
    for config in (MMoEConfig, TaskHeadsConfig):
        with pytest.raises(ValueError, match="tasks must be at least one, all different"):
            config(input_dim=1, tasks=tasks)


@pytest.mark.parametrize(
    ("rates", "message"), [((0.1,), "one per task"), ((0.1, 0.0), "strictly between"), ((1.0, 0.5), "strictly between")]
)
def test_task_heads_refuse_impossible_base_rates(rates: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskHeadsConfig(input_dim=1, tasks=("a", "b"), base_rates=rates)
