"""Trained models as ONNX programs, checked against the models they came from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from trainers.data.examples import Examples, Rows

logger = logging.getLogger(__name__)
# The exporter warns once per operator of packages that are not installed.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

TOLERANCE = 1e-5
"""Largest difference between a program's and a model's outputs that is put down to the order of additions: absolute up
to an output of 1, above that relative to it, for a probability of a logit beyond 1 differs by less than the logit."""
NUM_TRACED = 4
"""Rows that a model is traced with."""
NUM_CHECKED = 256
"""Rows at most that a program is checked with."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Inputs, and what the model says of them."""

    inputs: Mapping[str, Tensor]
    expected: Mapping[str, np.ndarray]


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
    case = recorded(model, examples.tensors(checked_rows(len(examples))))
    traced = {name: value[:NUM_TRACED] for name, value in case.inputs.items()}
    return export_program(model, traced, dict.fromkeys(traced, "batch"), [case], file)


def checked_rows(num_rows: int) -> Rows:
    """Positions of the rows to check with; few are repeated: a batch of one would be taken for a constant."""
    return np.arange(max(NUM_TRACED, min(num_rows, NUM_CHECKED))) % num_rows


def recorded(model: nn.Module, inputs: Mapping[str, Tensor]) -> Case:
    """What the model says of the inputs that it reads."""
    read = _Recorder(inputs)
    with torch.inference_mode():
        expected = {name: np.asarray(value) for name, value in model(read).items()}
    return Case(inputs={name: inputs[name] for name in sorted(read.names)}, expected=expected)


def export_program(
    model: nn.Module, traced: Mapping[str, Tensor], dims: Mapping[str, str], cases: Sequence[Case], file: Path
) -> float:
    """Write a model as an ONNX program.

    Args:
        traced: Inputs to trace it with; no first dimension of 1, which would be taken for a constant.
        dims: Name of each input's first dimension; dimensions of one name are of one size.
        cases: What the program must say, at least one.

    Returns:
        Largest difference from what it must say, as `TOLERANCE` counts it.

    Raises:
        ExportError: It is more than `TOLERANCE`.
    """
    names = tuple(traced)
    free = {name: torch.export.Dim(name) for name in dict.fromkeys(dims.values())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Flat(model, names).eval(),
            tuple(traced.values()),
            input_names=names,
            output_names=tuple(cases[0].expected),
            dynamic_shapes=(tuple({0: free[dims[name]]} for name in names),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)
    # Not `max`: a NaN must not get lost among the differences.
    difference = float(np.max([_difference(file, each) for each in cases]))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{file.name} must give its model's outputs within {TOLERANCE} (got a difference of {difference:.2e}); "
            "this is a fault of the export, please report it"
        )
    logger.info("exported file=%s difference=%.2e bytes=%d", file.name, difference, file.stat().st_size)
    return difference


def _difference(file: Path, case: Case) -> float:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    feed = {name: value.numpy() for name, value in case.inputs.items() if name in known}
    pairs = zip(session.run(list(case.expected), feed), case.expected.values(), strict=True)
    return float(np.max([(np.abs(got - want) / np.maximum(1.0, np.abs(want))).max() for got, want in pairs]))
