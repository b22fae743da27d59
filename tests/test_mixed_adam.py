"""Adam with row-wise gradients for id tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainers import checkpoint
from trainers.mixed_adam import MixedAdam


def model(*, sparse: bool) -> nn.Sequential:
    """An id table under a linear layer."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(6, 2, sparse=sparse), nn.Linear(2, 1))


def train(net: nn.Sequential, optimizer: MixedAdam, batches: list[list[int]], max_norm: float = 1e9) -> None:
    """One step on each batch of ids."""
    for ids in batches:
        optimizer.zero_grad()
        net(torch.tensor(ids)).square().sum().backward()
        optimizer.step(max_norm)


def weights(net: nn.Module) -> list[Tensor]:
    """Copies of all weights."""
    return [value.detach().clone() for value in net.parameters()]


def test_dense_model_is_trained_exactly_as_by_adamw() -> None:
    ours, stock = model(sparse=False), model(sparse=False)
    train(ours, MixedAdam(ours, lr=0.1, weight_decay=0.01), [[0, 1], [2, 2], [5, 0]])
    adamw = torch.optim.AdamW(stock.parameters(), lr=0.1, weight_decay=0.01, fused=True)
    for ids in ([0, 1], [2, 2], [5, 0]):
        adamw.zero_grad()
        stock(torch.tensor(ids)).square().sum().backward()
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(weights(ours), weights(stock), strict=True))


def test_sparse_table_moves_only_the_rows_of_the_batch_by_the_learning_rate_at_first() -> None:
    net = model(sparse=True)
    before = net[0].weight.detach().clone()
    train(net, MixedAdam(net, lr=0.1, weight_decay=0.5), [[1, 4, 4]])
    moved = (net[0].weight.detach() - before).abs()
    assert moved[[0, 2, 3, 5]].eq(0).all()
    # Adam's first step is lr * g / |g|: the learning rate in every element, whatever the gradient.
    torch.testing.assert_close(moved[[1, 4]], torch.full((2, 2), 0.1), rtol=1e-4, atol=0.0)


def test_gradients_of_dense_parameters_are_cut_to_the_norm() -> None:
    net = model(sparse=True)
    optimizer = MixedAdam(net, lr=0.1, weight_decay=0.0)
    train(net, optimizer, [[1, 4]], max_norm=1e-3)
    norm = torch.cat([parameter.grad.flatten() for parameter in net[1].parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert net[0].weight.grad.to_dense().norm() > 1e-3


@pytest.mark.parametrize("sparse", [False, True])
def test_checkpoint_continues_both_parts_exactly(tmp_path: Path, sparse: bool) -> None:
    first, second = [[0, 1], [2, 3]], [[0, 2], [5, 5], [1, 1]]
    whole = model(sparse=sparse)
    train(whole, MixedAdam(whole, lr=0.1, weight_decay=0.01), first + second)

    stopped = model(sparse=sparse)
    optimizer = MixedAdam(stopped, lr=0.1, weight_decay=0.01)
    train(stopped, optimizer, first)
    checkpoint.save(tmp_path / "c.safetensors", stopped, optimizer)
    resumed = model(sparse=sparse)
    optimizer = MixedAdam(resumed, lr=0.1, weight_decay=0.01)
    checkpoint.load(tmp_path / "c.safetensors", resumed, optimizer)
    train(resumed, optimizer, second)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_set_lr_holds_for_both_parts() -> None:
    net = model(sparse=True)
    before = weights(net)
    optimizer = MixedAdam(net, lr=0.1, weight_decay=0.0)
    optimizer.set_lr(0.0)
    train(net, optimizer, [[1, 2]])
    assert all(torch.equal(a, b) for a, b in zip(weights(net), before, strict=True))
