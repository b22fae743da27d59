"""Checkpoints: training goes on as if it had never stopped, and nothing is pickled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainers import checkpoint


def model_and_optimizer(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """An embedding and a linear layer, with a buffer, under fused AdamW."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.01, fused=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps on rows that follow from the step's number."""
    for step in steps:
        rows = torch.tensor([step % 5, (step + 1) % 5, (3 * step) % 5])
        loss = (model(rows) - rows[:, None].float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def weights(model: nn.Module) -> dict[str, Tensor]:
    """State of a model."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_checkpoint_continues_training_exactly(tmp_path: Path) -> None:
    whole, optimizer = model_and_optimizer(0)
    train(whole, optimizer, range(6))

    first, optimizer = model_and_optimizer(0)
    train(first, optimizer, range(3))
    checkpoint.save(tmp_path / "c.safetensors", first, optimizer)
    second, optimizer = model_and_optimizer(1)
    checkpoint.load(tmp_path / "c.safetensors", second, optimizer)
    train(second, optimizer, range(3, 6))

    expected = weights(whole)
    assert expected.keys() == weights(second).keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())


def test_checkpoint_gives_back_extra_tensors_and_notes(tmp_path: Path) -> None:
    model, _ = model_and_optimizer(0)
    extra = {"table": torch.arange(3, dtype=torch.float64), "keys": torch.tensor([2**63 + 5], dtype=torch.uint64)}
    notes = {"cutoff": "2024-01-02T00:00:00+00:00", "progressive": [{"roc_auc": 0.5}]}
    checkpoint.save(tmp_path / "c.safetensors", model, extra=extra, notes=notes)
    found, read = checkpoint.load(tmp_path / "c.safetensors", model)
    assert read == notes
    assert found.keys() == extra.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in extra.items())


def test_checkpoint_is_a_safetensors_file_alone_in_its_folder(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(0)
    train(model, optimizer, range(1))
    file = tmp_path / "new" / "c.safetensors"
    for _ in range(2):
        checkpoint.save(file, model, optimizer)
    assert [path.name for path in file.parent.iterdir()] == ["c.safetensors"]
    with safe_open(file, framework="pt") as opened:
        names = set(opened.keys())
    assert "model.0.weight" in names
    assert "optimizer.0.exp_avg" in names


def test_checkpoint_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    model, _ = model_and_optimizer(0)
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, model, notes={"cutoff": "old"})
    with pytest.raises(TypeError):
        checkpoint.save(file, model, notes={"cutoff": object()})
    assert checkpoint.load(file, model)[1] == {"cutoff": "old"}


def test_checkpoint_of_another_recipe_names_the_first_tensor_that_differs(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(0)
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, model, optimizer)
    wider = nn.Sequential(nn.Embedding(7, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    before = weights(wider)
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"this recipe .* with 0\.weight of shape \(7, 3\) \(got \(5, 3\)\); go on with",
    ):
        checkpoint.load(file, wider)
    assert all(torch.equal(value, before[name]) for name, value in weights(wider).items())
    deeper = nn.Sequential(*model, nn.Linear(1, 1))
    with pytest.raises(checkpoint.CheckpointError, match=r"with 3\.bias of shape \(1,\) \(got none\)"):
        checkpoint.load(file, deeper)


def test_checkpoint_with_another_content_than_its_hash_is_refused(tmp_path: Path) -> None:
    model, _ = model_and_optimizer(0)
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, model)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"must have the sha256 [0-9a-f]{64} .*\(got [0-9a-f]{64}\)"):
        checkpoint.load(file, model)


def test_checkpoint_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    model, _ = model_and_optimizer(0)
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, model)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(checkpoint.CheckpointError, match="must be a whole checkpoint"):
        checkpoint.load(file, model)
