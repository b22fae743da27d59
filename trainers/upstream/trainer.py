"""Training, scoring and embedding with one upstream model.

Dims: N rows, B batch, T tasks, E width of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import checkpoint
from trainers.data.examples import Examples, Rows, batches
from trainers.frequency import CountMinConfig, CountMinSketch
from trainers.losses import ContrastiveConfig, ContrastiveLoss, multi_task_bce
from trainers.mixed_adam import MixedAdam
from trainers.progress import Stage
from trainers.upstream.compatibility import BackwardMap, Compatibility, compatibility_loss
from trainers.upstream.model import UpstreamConfig, UpstreamModel, UpstreamOutput
from trainers.upstream.recipes import UpstreamRecipe

SCORING_BATCH = 8192
MAX_GRADIENT_NORM = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamExamples:
    """Encoded rows of one domain with the keys that the contrastive loss tells apart."""

    examples: Examples
    """Inputs of all three sides, labels [N, T]."""
    user_ids: npt.NDArray[np.int64]
    """User key of each row."""
    pin_ids: npt.NDArray[np.int64]
    """Pin key of each row."""


class UpstreamTrainer:
    """One upstream model, its optimiser and its estimate of how often each Pin occurs."""

    def __init__(
        self, config: UpstreamConfig, recipe: UpstreamRecipe, seed: int, compatibility: Compatibility | None = None
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.compatibility = recipe, compatibility
        self.model = UpstreamModel(config)
        self.backward: BackwardMap | None = None
        if compatibility is not None:
            # Part of the model, so that optimiser and checkpoint hold it without being told.
            self.backward = BackwardMap(config.embedding_dim, compatibility.older_dim)
            self.model.add_module("backward_map", self.backward)
        self.contrastive = ContrastiveLoss(ContrastiveConfig(temperature=recipe.temperature))
        self.optimizer = MixedAdam(self.model, lr=recipe.daily_lr, weight_decay=recipe.weight_decay)
        self.sketch = CountMinSketch(CountMinConfig(half_life=float(1 << 20), seed=seed))

    def fit(self, data: UpstreamExamples, rows: Rows, *, lr: float, rng: np.random.Generator, stage: Stage) -> float:
        """One pass over the rows in random order; returns the mean loss.

        More passes over the same rows overfit the id tables at once, so there is one.
        """
        self.optimizer.set_lr(lr)
        # Dropout draws from torch's own generator: seed it per call, so that a resumed walk repeats it.
        torch.manual_seed(int(rng.integers(2**31)))
        self.model.train()
        losses = []
        for batch in batches(rows, self.recipe.batch_size, rng):
            if len(batch) > 1:
                losses.append(self._step(data, batch))
            stage.advance(len(batch))
        return float(np.mean(losses)) if losses else float("nan")

    def _step(self, data: UpstreamExamples, batch: Rows) -> float:
        labels = torch.from_numpy(data.examples.labels[batch])
        pin_ids = data.pin_ids[batch]
        self.sketch.update(pin_ids)
        inputs = data.examples.tensors(batch)
        output = self.model(inputs)
        task_labels = dict(zip(output.logits, labels.unbind(1), strict=True))
        supervised, _ = multi_task_bce(output.logits, task_labels)
        contrastive = self.contrastive(
            output.user,
            output.pin,
            torch.from_numpy(pin_ids),
            (labels == 1.0).any(dim=1),
            torch.from_numpy(self.sketch.log_probability(pin_ids)),
            user_ids=torch.from_numpy(data.user_ids[batch]),
        )
        loss = supervised + self.recipe.contrastive_weight * contrastive + self._compatibility_loss(output, inputs)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss must be finite (got {loss.item()} on rows {batch[:3].tolist()}…); lower the recipe's rates"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(max_norm=MAX_GRADIENT_NORM)
        return float(loss.detach())

    def _compatibility_loss(self, output: UpstreamOutput, inputs: dict[str, Tensor]) -> Tensor:
        """Weighted loss of being read as the version before; 0 where there is none."""
        if self.backward is None or self.compatibility is None:
            return torch.zeros(())
        embedded = {"user": output.user, "pin": output.pin}
        return self.compatibility.weight * compatibility_loss(self.backward, embedded, inputs)

    @torch.inference_mode()
    def score(self, examples: Examples, rows: Rows) -> npt.NDArray[np.float32]:
        """Logits [N, T] of the rows."""
        self.model.eval()
        parts = [
            torch.stack(list(self.model(examples.tensors(batch)).logits.values()), dim=1)
            for batch in batches(rows, SCORING_BATCH)
        ]
        return np.asarray(torch.cat(parts)) if parts else np.empty((0, examples.labels.shape[1]), np.float32)

    @torch.inference_mode()
    def embed(self, entity: str, examples: Examples) -> npt.NDArray[np.float32]:
        """Embeddings [N, E] of users or Pins."""
        self.model.eval()
        tower = self.model.embed_users if entity == "user" else self.model.embed_pins
        rows = np.arange(len(examples))
        parts: list[Tensor] = [tower(examples.tensors(batch)) for batch in batches(rows, SCORING_BATCH)]
        return np.asarray(torch.cat(parts)) if parts else np.empty((0, self.model.config.embedding_dim), np.float32)

    def save(self, path: Path, notes: dict[str, Any]) -> None:
        """Checkpoint everything that training continues from."""
        extra = {name: torch.from_numpy(values) for name, values in self.sketch.to_arrays().items()}
        checkpoint.save(path, self.model, self.optimizer, extra=extra, notes=notes)

    def load(self, path: Path) -> dict[str, Any]:
        """Continue from a checkpoint; returns its notes."""
        extra, notes = checkpoint.load(path, self.model, self.optimizer)
        arrays = {name: tensor.numpy() for name, tensor in extra.items()}
        self.sketch = CountMinSketch.from_arrays(self.sketch.config, arrays)
        return notes
