"""What every module promises, written once; each module's test file subclasses `ModuleContract`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BATCH = 6


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors of a module's inputs or outputs, in a fixed order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for key in sorted(output) for tensor in tensors_of(output[key])]
    return [tensor for part in output for tensor in tensors_of(part)]


def reordered(inputs: Any, order: Tensor) -> Any:
    """The same inputs with their rows in another order."""
    if isinstance(inputs, Tensor):
        return inputs[order]
    if isinstance(inputs, Mapping):
        return {key: reordered(value, order) for key, value in inputs.items()}
    return tuple(reordered(part, order) for part in inputs)


class ModuleContract(ABC):
    """Shape, finite gradients, independence of rows, storage and determinism."""

    @abstractmethod
    def make(self) -> nn.Module:
        """A fresh module."""

    @abstractmethod
    def inputs(self) -> tuple[Any, ...]:
        """Arguments of `forward` for `BATCH` rows."""

    @abstractmethod
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each output tensor without the batch, in the order of `tensors_of`."""

    @pytest.fixture
    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def test_output_has_the_declared_shapes(self, module: nn.Module) -> None:
        outputs = tensors_of(module(*self.inputs()))
        assert [tuple(output.shape) for output in outputs] == [(BATCH, *shape) for shape in self.shapes()]

    def test_gradients_are_finite_and_reach_every_weight(self, module: nn.Module) -> None:
        outputs = [output for output in tensors_of(module(*self.inputs())) if output.is_floating_point()]
        torch.manual_seed(1)
        torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()
        for name, weight in module.named_parameters():
            assert weight.grad is not None, f"{name} has no gradient"
            gradient = weight.grad.to_dense()
            assert gradient.isfinite().all(), f"{name} has a gradient that is not finite"
            assert gradient.any(), f"{name} has a gradient of zero"

    def test_rows_do_not_influence_each_other(self, module: nn.Module) -> None:
        inputs = self.inputs()
        order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(2))
        for output, shuffled in zip(
            tensors_of(module(*inputs)), tensors_of(module(*reordered(inputs, order))), strict=True
        ):
            torch.testing.assert_close(output[order], shuffled)

    def test_state_survives_safetensors(self, module: nn.Module, tmp_path: Path) -> None:
        save_file(module.state_dict(), tmp_path / "weights.safetensors")
        torch.manual_seed(3)
        other = self.make().eval()
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        for output, restored in zip(tensors_of(module(*self.inputs())), tensors_of(other(*self.inputs())), strict=True):
            assert torch.equal(output, restored)

    def test_same_seed_gives_the_same_training_output(self) -> None:
        outputs = []
        for _ in range(2):
            torch.manual_seed(4)
            outputs.append(tensors_of(self.make().train()(*self.inputs())))
        assert all(torch.equal(first, second) for first, second in zip(*outputs, strict=True))


def fields(num_fields: int, field_dim: int, seed: int = 0) -> Tensor:
    """Field embeddings [BATCH, num_fields, field_dim]."""
    return torch.randn(BATCH, num_fields, field_dim, generator=torch.Generator().manual_seed(seed))
