"""Model and optimiser state in one safetensors file, written in one step and never pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class Optimizer(Protocol):
    """What keeps the state that a checkpoint restores; torch's optimisers do."""

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {parameter index: {name: value}}, "param_groups": …}`."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Continue from such a state."""


_MODEL, _OPTIMIZER, _EXTRA = "model.", "optimizer.", "extra."


def save(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    *,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, whole.

    Args:
        extra: Further tensors to keep, such as a frequency sketch.
        notes: JSON-ready facts, such as the last cut-off trained on.
    """
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    if optimizer is not None:
        tensors |= _optimizer_tensors(optimizer)
    tensors |= {_EXTRA + name: value for name, value in (extra or {}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(contiguous, partial, metadata={"notes": json.dumps(dict(notes or {}))})
    partial.replace(path)


def load(path: Path, model: nn.Module, optimizer: Optimizer | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Restore model and optimiser in place; learning rates and the like stay as the optimiser was made with.

    Returns:
        The extra tensors and the notes that `save` was given.

    Raises:
        RuntimeError: The file holds a model of other shapes.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = json.loads(file.metadata()["notes"])
    model.load_state_dict(_under(_MODEL, tensors))
    if optimizer is not None:
        _restore_optimizer(optimizer, _under(_OPTIMIZER, tensors))
    return _under(_EXTRA, tensors), notes


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{_OPTIMIZER}{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def _restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
