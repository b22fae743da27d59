"""Exported programs: free batch size, only the inputs that are read, and no silent difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from trainers.data.examples import Examples
from trainers.evaluation import onnx_export
from trainers.evaluation.onnx_export import ExportError, export


class Small(nn.Module):
    """Two inputs of three to two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.table = nn.Embedding(5, 1)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        dense = self.linear(inputs["user_dense"]).squeeze(1)
        return {"click": dense + self.table(inputs["user_id_0"]).squeeze(1), "like": 2.0 * dense}


def examples(count: int) -> Examples:
    """Rows with one input that no model reads."""
    random = np.random.default_rng(count)
    inputs = {
        "user_dense": random.normal(size=(count, 3)).astype(np.float32),
        "user_id_0": random.integers(0, 5, count).astype(np.int32),
        "pin_dense": np.zeros((count, 2), np.float32),
    }
    return Examples(inputs=inputs, labels=np.empty((count, 0), np.float32))


def run(file: Path, rows: Examples) -> dict[str, np.ndarray]:
    """Outputs of a program."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {each.name: rows.tensors(np.arange(len(rows)))[each.name].numpy() for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.fixture(scope="module")
def model() -> Small:
    """A model."""
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def program(model: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its program."""
    file = tmp_path_factory.mktemp("onnx") / "small.onnx"
    assert export(model, examples(20), file) < onnx_export.TOLERANCE
    return file


@pytest.mark.parametrize("count", [1, 4, 300])
def test_program_computes_what_the_model_does_at_any_batch_size(model: Small, program: Path, count: int) -> None:
    rows = examples(count)
    with torch.inference_mode():
        expected = model(rows.tensors(np.arange(count)))
    found = run(program, rows)
    assert list(found) == ["click", "like"]
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5)


def test_program_declares_only_what_is_read(program: Path) -> None:
    session = onnxruntime.InferenceSession(str(program), providers=["CPUExecutionProvider"])
    assert sorted(each.name for each in session.get_inputs()) == ["user_dense", "user_id_0"]


def test_export_takes_a_single_row(model: Small, tmp_path: Path) -> None:
    export(model, examples(1), tmp_path / "small.onnx")
    assert run(tmp_path / "small.onnx", examples(7))["click"].shape == (7,)


@pytest.mark.parametrize("wrong", [0.5, np.nan])
def test_export_refuses_a_program_that_differs(
    model: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    traced = onnx_export._Flat.forward

    def different(self: onnx_export._Flat, *inputs: Tensor) -> tuple[Tensor, ...]:
        first, *others = traced(self, *inputs)
        return (first + wrong, *others)

    monkeypatch.setattr(onnx_export._Flat, "forward", different)
    with pytest.raises(ExportError, match=r"small.onnx must give its model's outputs within 1e-05 \(got"):
        export(model, examples(8), tmp_path / "small.onnx")
