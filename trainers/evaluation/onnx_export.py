"""Trained models as ONNX programs, checked against the models they came from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from trainers.data.examples import Examples

logger = logging.getLogger(__name__)
# The exporter warns once per operator of packages that are not installed.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

TOLERANCE = 1e-5
"""Largest difference between a program's and a model's outputs that is put down to the order of additions: absolute up
to an output of 1, above that relative to it, for a probability of a logit beyond 1 differs by less than the logit."""
NUM_TRACED = 4
"""Rows that a model is traced with."""


class ExportError(RuntimeError):
    """A program does not compute what its model computes."""


class _Flat(nn.Module):
    """A model of named inputs as a function of positional ones, which is what a program has."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(dict(zip(self.names, inputs, strict=True)))
        return tuple(outputs.values())


class _Recorder(dict[str, Tensor]):
    """Inputs that remember which of them were read: a program must not declare the others."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__(inputs)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.names.add(name)
        return super().__getitem__(name)


def export(model: nn.Module, examples: Examples, file: Path) -> float:
    """Write a model of named inputs and outputs as an ONNX program with a free batch size.

    Args:
        model: Maps a dict of inputs to a dict of outputs; in evaluation mode.
        examples: Rows to trace and to check with, at least one; inputs that the model doesn't read are no problem.
        file: Where the program goes.

    Returns:
        Largest difference between the program's and the model's outputs on the rows, as `TOLERANCE` counts it.

    Raises:
        ExportError: They differ by more than `TOLERANCE`.
    """
    # Few rows are repeated: a batch of one would be taken for a constant.
    read = _Recorder(examples.tensors(np.arange(max(NUM_TRACED, min(len(examples), 256))) % len(examples)))
    with torch.inference_mode():
        expected = {name: np.asarray(value) for name, value in model(read).items()}
    inputs = {name: read[name] for name in sorted(read.names)}
    names = tuple(inputs)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Flat(model, names).eval(),
            tuple(value[:NUM_TRACED] for value in inputs.values()),
            input_names=names,
            output_names=tuple(expected),
            dynamic_shapes=(tuple({0: batch} for _ in names),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)
    difference = _difference(file, inputs, expected)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{file.name} must give its model's outputs within {TOLERANCE} (got a difference of {difference:.2e}); "
            "this is a fault of the export, please report it"
        )
    logger.info("exported file=%s difference=%.2e bytes=%d", file.name, difference, file.stat().st_size)
    return difference


def _difference(file: Path, inputs: Mapping[str, Tensor], expected: Mapping[str, np.ndarray]) -> float:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    outputs = session.run(list(expected), {name: value.numpy() for name, value in inputs.items() if name in known})
    pairs = zip(outputs, expected.values(), strict=True)
    # Not `max`: a NaN must not get lost among the outputs.
    return float(np.max([(np.abs(got - want) / np.maximum(1.0, np.abs(want))).max() for got, want in pairs]))
