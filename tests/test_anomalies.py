"""Trainings that must stop: what the error names, what is kept of the batch, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainers.anomalies import AnomalyGuard, TrainingAnomalyError
from trainers.run_lock import held_run, run_lock

NAN, INF = float("nan"), float("inf")


def batch() -> dict[str, Tensor]:
    """Inputs and labels of two rows."""
    return {"dense": torch.tensor([[1.0, NAN], [2.0, 3.0]]), "labels": torch.tensor([0.0, 1.0])}


def check(guard: AnomalyGuard, **parts: float) -> float:
    """Look at the sum of some parts."""
    tensors = {name: torch.tensor(value) for name, value in parts.items()}
    return guard.check_loss(torch.stack(list(tensors.values())).sum(), tensors, batch)


def test_guard_takes_losses_that_are_finite() -> None:
    guard = AnomalyGuard("ctr on 2024-01-03")
    assert [check(guard, click=0.5, like=0.25), check(guard, click=0.0)] == [0.75, 0.0]


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"click": 0.5, "contrastive": NAN}, "nan in contrastive; click 0.5, contrastive nan"),
        ({"click": INF, "contrastive": NAN}, "nan in click, contrastive; click inf"),
        ({"click": 3e38, "like": 3e38}, "inf in their sum; click 3e\\+38"),
    ],
)
def test_guard_names_the_step_and_the_part_that_is_not_finite(parts: dict[str, float], named: str) -> None:
    guard = AnomalyGuard("ctr on 2024-01-03", remedy="lower its lr")
    check(guard, click=0.5)
    with pytest.raises(
        TrainingAnomalyError,
        match=rf"ctr on 2024-01-03, step 2: the loss must be finite \(got {named}.*; look at the data, or lower its lr",
    ):
        check(guard, **parts)


def test_guard_stops_at_a_loss_a_hundred_times_the_mean_before() -> None:
    guard = AnomalyGuard("ctr on 2024-01-03")
    for _ in range(1000):
        check(guard, click=3.0)
    assert check(guard, click=2.0, contrastive=295.0) == 297.0
    # 0.99 * 3 + 0.01 * 297 = 5.94, whose hundredfold is 594.
    assert check(guard, click=590.0) == 590.0
    with pytest.raises(
        TrainingAnomalyError, match=r"at most 100 times the mean before, 11.78 \(got 1200, most of it co"
    ):
        check(guard, click=10.0, contrastive=1190.0)


def test_guard_lets_a_small_mean_grow_to_a_hundred_nats() -> None:
    guard = AnomalyGuard("ctr on 2024-01-03")
    for _ in range(100):
        check(guard, click=0.0)
    assert check(guard, click=99.0) == 99.0


@pytest.mark.parametrize("sparse", [False, True])
def test_guard_names_the_weights_whose_gradient_is_not_finite(sparse: bool) -> None:
    net = nn.Sequential(nn.Embedding(5, 2, sparse=sparse), nn.Linear(2, 1))
    guard = AnomalyGuard("ranker")
    net(torch.tensor([1, 3])).sum().backward()
    guard.check_gradients(net, batch)
    net.zero_grad()
    (net[0](torch.tensor([1, 3])) * INF).sum().backward()
    with pytest.raises(
        TrainingAnomalyError, match=r"before its first step: gradients must be finite \(got inf in 0.weight\)"
    ):
        guard.check_gradients(net, batch)


def test_guard_stops_at_gradients_whose_norm_overflows() -> None:
    net = nn.Linear(2, 1)
    net.weight.grad = torch.full((1, 2), 3e38)
    with pytest.raises(TrainingAnomalyError, match=r"must be finite \(got inf in their norm\)"):
        AnomalyGuard("ranker").check_gradients(net, batch)


def test_guard_takes_a_model_without_gradients() -> None:
    AnomalyGuard("ranker").check_gradients(nn.Linear(2, 1), batch)


def test_batch_is_kept_in_the_run_and_named_in_the_error(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        guard = AnomalyGuard("ctr on 2024-01-03")
        with pytest.raises(TrainingAnomalyError, match=r"the batch is in .*ctr-on-2024-01-03-step-1\.safetensors"):
            check(guard, click=NAN)
    assert [file.name for file in (tmp_path / "anomalies").iterdir()] == ["ctr-on-2024-01-03-step-1.safetensors"]
    with safe_open(tmp_path / "anomalies/ctr-on-2024-01-03-step-1.safetensors", framework="pt") as file:
        for name, value in batch().items():
            torch.testing.assert_close(file.get_tensor(name), value, equal_nan=True)
        assert json.loads(file.metadata()["notes"]).startswith("ctr on 2024-01-03, step 1: the loss must be finite")


def test_held_run_is_the_one_whose_lock_is_held(tmp_path: Path) -> None:
    assert held_run() is None
    with run_lock(tmp_path):
        assert held_run() == tmp_path
    assert held_run() is None
