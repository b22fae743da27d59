"""Model and optimiser state in one safetensors file, written in one step and never pickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class CheckpointError(RuntimeError):
    """A file that no training can go on from; the text says why."""


class Optimizer(Protocol):
    """What keeps the state that a checkpoint restores; torch's optimisers do."""

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {parameter index: {name: value}}, "param_groups": …}`."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Continue from such a state."""


_REMEDY = "remove it to train from the beginning"
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
    facts = {"notes": json.dumps(dict(notes or {})), "sha256": _digest(contiguous)}
    save_file(contiguous, partial, metadata=facts)
    partial.replace(path)


def load(path: Path, model: nn.Module, optimizer: Optimizer | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Restore model and optimiser in place; learning rates and the like stay as the optimiser was made with.

    Returns:
        The extra tensors and the notes that `save` was given.

    Raises:
        CheckpointError: The file is damaged, or holds a model of another recipe or other inputs.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = file.metadata()
    except SafetensorError as error:
        raise CheckpointError(f"{path} must be a whole checkpoint (got: {error}); {_REMEDY}") from error
    written, found = facts.get("sha256"), _digest(tensors)
    if written not in (None, found):
        raise CheckpointError(
            f"{path} must have the sha256 {written} that it was written with (got {found}); {_REMEDY}"
        )
    _check_shapes(path, _under(_MODEL, tensors), model.state_dict())
    notes = json.loads(facts["notes"])
    model.load_state_dict(_under(_MODEL, tensors))
    if optimizer is not None:
        _restore_optimizer(optimizer, _under(_OPTIMIZER, tensors))
    return _under(_EXTRA, tensors), notes


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 of names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name].numpy())
        digest.update(f"{name} {values.dtype} {values.shape};".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _check_shapes(path: Path, found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    for name in sorted({*found, *needed}):
        got, wanted = (tuple(each[name].shape) if name in each else None for each in (found, needed))
        if got != wanted:
            raise CheckpointError(
                f"{path} must hold a model of this recipe and these inputs, with {name} of shape {wanted or 'none'} "
                f"(got {got or 'none'}); go on with the recipe that it was made with, or {_REMEDY}"
            )


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
