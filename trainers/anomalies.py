"""Losses and gradients that stop a training before they change a weight, with the batch kept to be looked at.

A weight that is not a number spoils every later step, and an exploded loss is one on the way there: going on would end
in a checkpoint that is of no use. The checkpoint before stays as it was, and a resumed run goes on from it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainers.run_lock import held_run

logger = logging.getLogger(__name__)

FOLDER = "anomalies"
"""Folder of a run with the batches that stopped a training."""
EXPLODED = 100.0
"""A loss this many times the mean so far has exploded, and so has one of so many nats at the start."""
MEMORY = 0.99
"""Weight of the past in the mean of the losses."""

Batch = Callable[[], Mapping[str, Tensor]]
"""Inputs, labels and keys of the batch under way; called only when it is to be kept."""


class TrainingAnomalyError(FloatingPointError):
    """A loss or gradient that no training goes on from; the text names it and the file with the batch."""


class AnomalyGuard:
    """Looks at every step of one training."""

    def __init__(self, subject: str, *, remedy: str = "lower the recipe's learning rate") -> None:
        """
        Args:
            subject: What is trained and on which day, for the error and the file's name.
            remedy: What mends a training whose data is in order.
        """
        self._subject, self._remedy = subject, remedy
        self._step, self._mean = 0, 1.0

    def check_loss(self, loss: Tensor, parts: Mapping[str, Tensor], batch: Batch) -> float:
        """The loss of the next step as a number.

        Args:
            loss: What gradients are taken of.
            parts: What it is made of, by name.

        Raises:
            TrainingAnomalyError: The loss, or a part of it, is not finite or has exploded.
        """
        self._step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            odd = [name for name, part in parts.items() if not torch.isfinite(part)] or ["their sum"]
            self._stop(f"the loss must be finite (got {value} in {', '.join(odd)}; {_listed(parts)})", batch)
        if abs(value) > EXPLODED * max(self._mean, 1.0):
            largest = max(parts, key=lambda name: abs(float(parts[name])), default="it")
            limit = f"at most {EXPLODED:g} times the mean before, {self._mean:.4g}"
            self._stop(f"the loss must be {limit} (got {value:.4g}, most of it {largest}; {_listed(parts)})", batch)
        self._mean = MEMORY * self._mean + (1.0 - MEMORY) * value
        return value

    def check_gradients(self, model: nn.Module, batch: Batch) -> None:
        """Look at all gradients after the backward pass, before the optimiser's step.

        Raises:
            TrainingAnomalyError: One is not finite, or all together are too long for a float32.
        """
        gradients = [values for _, values in _gradients(model)]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
        if torch.isfinite(norm):
            return
        odd = [name for name, values in _gradients(model) if not torch.isfinite(values).all()]
        shown = f"{', '.join(odd[:3])}{'…' if len(odd) > 3 else ''}" or "their norm"
        self._stop(f"gradients must be finite (got {float(norm)} in {shown})", batch)

    def check_scores(self, scores: npt.NDArray[np.float32], rows_of: Callable[[npt.NDArray[np.int64]], Batch]) -> None:
        """Look at scores [N, T] of rows that the model has not learned from yet.

        Args:
            rows_of: What gives the batch of the rows at these positions.

        Raises:
            TrainingAnomalyError: One is not finite; the rows that it is of are kept.
        """
        odd = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(odd):
            self._stop(f"scores must be finite (got {len(odd)} of {len(scores)} rows that are not)", rows_of(odd))

    def _stop(self, complaint: str, batch: Batch) -> None:
        place = f"{self._subject}, step {self._step}" if self._step else f"{self._subject}, before its first step"
        file = _keep(batch(), f"{place}: {complaint}", re.sub(r"[^0-9a-zA-Z]+", "-", place))
        kept = f"the batch is in {file}: look at its inputs" if file is not None else "look at the data"
        raise TrainingAnomalyError(f"{place}: {complaint}; {kept}, or {self._remedy}")


def _listed(parts: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(part):.4g}" for name, part in parts.items())


def _gradients(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Gradient of each parameter that has one; of row-wise ones, their rows."""
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is not None:
            # As they came: adding up what belongs to one row would be done again by the optimiser.
            yield name, gradient._values() if gradient.is_sparse else gradient


def _keep(batch: Mapping[str, Tensor], notes: str, name: str) -> Path | None:
    """Write a batch into the run that this process works in; none outside of a run."""
    run = held_run()
    if run is None:
        return None
    file = run / FOLDER / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    save_file({key: value.contiguous() for key, value in batch.items()}, partial, metadata={"notes": json.dumps(notes)})
    partial.replace(file)
    logger.error("event=training_anomaly file=%s", file)
    return file
