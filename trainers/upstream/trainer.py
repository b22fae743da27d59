"""Training, scoring and embedding with one upstream model.

Dims: N rows, B batch, T tasks, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import checkpoint
from trainers.anomalies import AnomalyGuard
from trainers.data.examples import Examples, Rows, batches
from trainers.frequency import CountMinConfig, CountMinSketch
from trainers.losses import (
    ContrastiveConfig,
    ContrastiveLoss,
    UncertaintyWeighting,
    UniformNegatives,
    multi_task_bce,
)
from trainers.mixed_adam import MixedAdam
from trainers.parallel import current_team
from trainers.progress import Stage
from trainers.upstream.compatibility import BackwardMap, Compatibility, compatibility_loss
from trainers.upstream.model import UpstreamConfig, UpstreamModel, UpstreamOutput
from trainers.upstream.recipes import UpstreamRecipe

SCORING_BATCH = 8192
MAX_GRADIENT_NORM = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamExamples:
    """Encoded rows of one model with the keys that the contrastive loss tells apart."""

    examples: Examples
    """Inputs of all three sides, labels [N, T]."""
    user_ids: npt.NDArray[np.int64]
    """User key of each row."""
    pin_ids: npt.NDArray[np.int64]
    """Pin key of each row."""
    judged: npt.NDArray[np.float32] | None = None
    """Labels [N, T] that scores are held against; those that are learned where not given."""
    fake_negatives: frozenset[str] = frozenset()
    """Tasks of which every row enters as a negative, and again as a positive once it converts."""

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """Everything that a step on these rows reads, and where they lie."""
        keys = {"user_ids": self.user_ids[rows], "pin_ids": self.pin_ids[rows], "rows": rows}
        own = {"labels": self.examples.labels[rows], **keys}
        return self.examples.tensors(rows) | {name: torch.from_numpy(values) for name, values in own.items()}


class _Pass(NamedTuple):
    """What the steps of one pass have in common."""

    data: UpstreamExamples
    pin_rows: Rows
    """A row of each Pin that uniform negatives are drawn from; none where the recipe wants none."""
    rng: np.random.Generator
    guard: AnomalyGuard


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
        self.contrastive = ContrastiveLoss(
            ContrastiveConfig(temperature=recipe.temperature, learned_temperature=recipe.learned_temperature)
        )
        if recipe.learned_temperature:
            self.model.add_module("contrastive", self.contrastive)
        self.weighting: UncertaintyWeighting | None = None
        if recipe.task_weighting == "uncertainty":
            self.weighting = UncertaintyWeighting(config.tasks)
            self.model.add_module("task_weighting", self.weighting)
        self.optimizer = MixedAdam(self.model, lr=recipe.daily_lr, weight_decay=recipe.weight_decay)
        self.sketch = CountMinSketch(CountMinConfig(half_life=float(1 << 20), seed=seed))

    def fit(
        self,
        data: UpstreamExamples,
        rows: Rows,
        *,
        lr: float,
        rng: np.random.Generator,
        stage: Stage,
        subject: str = "upstream model",
    ) -> float:
        """One pass over the rows in random order; returns the mean loss.

        More passes over the same rows overfit the id tables at once, so there is one.

        Args:
            subject: Model and day, for the error.

        Raises:
            TrainingAnomalyError: A loss or gradient is not finite, or a loss has exploded; no weight was changed by it.
        """
        self.optimizer.set_lr(lr)
        # Dropout draws from torch's own generator: seed it per call, so that a resumed walk repeats it.
        torch.manual_seed(int(rng.integers(2**31)))
        self.model.train()
        guard = AnomalyGuard(subject, remedy="lower the recipe's pretrain_lr and daily_lr")
        drawn_from = rows if self.recipe.uniform_negatives else rows[:0]
        over = _Pass(data, drawn_from[np.unique(data.pin_ids[drawn_from], return_index=True)[1]], rng, guard)
        losses = []
        for batch in batches(rows, self.recipe.batch_size, rng):
            if len(batch) > 1:
                losses.append(self._step(over, batch))
            stage.advance(len(batch))
        return float(np.mean(losses)) if losses else float("nan")

    def _step(self, over: _Pass, batch: Rows) -> float:
        loss, parts = self._loss(over, batch)
        value = over.guard.check_loss(loss, parts, partial(over.data.tensors, batch))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if (team := current_team()) is not None:
            team.average_gradients(self.model)
        over.guard.check_gradients(self.model, partial(over.data.tensors, batch))
        self.optimizer.step(max_norm=MAX_GRADIENT_NORM)
        return value

    def _loss(self, over: _Pass, batch: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        """What gradients are taken of, and the losses that it is made of, by name."""
        data, recipe = over.data, self.recipe
        labels, pin_ids = torch.from_numpy(data.examples.labels[batch]), data.pin_ids[batch]
        self.sketch.update(pin_ids)
        inputs = data.examples.tensors(batch)
        self.model.count_ids(inputs)
        output = self._forward(inputs, len(batch))
        supervised, parts = self._supervised(output.logits, labels, data.fake_negatives)
        contrastive = self.contrastive(
            output.user,
            output.pin,
            torch.from_numpy(pin_ids),
            (labels == 1.0).any(dim=1),
            torch.from_numpy(self.sketch.log_probability(pin_ids)),
            user_ids=torch.from_numpy(data.user_ids[batch]),
            uniform=self._uniform_negatives(over),
        )
        compatible = self._compatibility_loss(output, inputs)
        loss = supervised + recipe.contrastive_weight * contrastive + compatible
        others = {"contrastive": contrastive, "compatibility": compatible if self.backward else None}
        return loss, parts | {name: part.detach() for name, part in others.items() if part is not None}

    def _supervised(
        self, logits: dict[str, Tensor], labels: Tensor, fake_negatives: frozenset[str] = frozenset()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        by_task = dict(zip(logits, labels.unbind(1), strict=True))
        if self.weighting is not None:
            weighted: tuple[Tensor, dict[str, Tensor]] = self.weighting(logits, by_task, fake_negatives)
            return weighted
        return multi_task_bce(logits, by_task, dict(self.recipe.task_weights), fake_negatives=fake_negatives)

    def _uniform_negatives(self, over: _Pass) -> UniformNegatives | None:
        """Pins of the pass drawn uniformly, each as one of the rows shows it; none where the recipe wants none."""
        count = self.recipe.uniform_negatives
        if not count:
            return None
        rows = over.rng.choice(over.pin_rows, count)
        inputs, ids = over.data.examples.tensors(rows), over.data.pin_ids[rows]
        team = current_team()
        with self._precision():
            if team is None:
                vectors = self.model.embed_pins(inputs)
            else:
                with team.computing(count) as own:
                    vectors = team.gathered(self.model.embed_pins(_rows(inputs, own)), count)
        log_q = torch.from_numpy(self.sketch.log_probability(ids))
        return UniformNegatives(vectors, torch.from_numpy(ids), log_q, len(over.pin_rows))

    def _forward(self, inputs: dict[str, Tensor], num_rows: int) -> UpstreamOutput:
        """Output of all rows; in a team each process computes its share."""
        team = current_team()
        if team is None:
            return self._output(inputs)
        with team.computing(num_rows) as own:
            return team.gathered_output(self._output(_rows(inputs, own)), num_rows)

    def _output(self, inputs: dict[str, Tensor]) -> UpstreamOutput:
        """Output of the model in the recipe's precision, as float32."""
        with self._precision():
            output = self.model(inputs)
        fields = [
            each.float() if isinstance(each, Tensor) else {name: value.float() for name, value in each.items()}
            for each in output
        ]
        return UpstreamOutput._make(fields)

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _compatibility_loss(self, output: UpstreamOutput, inputs: dict[str, Tensor]) -> Tensor:
        """Weighted loss of being read as the version before; 0 where there is none."""
        if self.backward is None or self.compatibility is None:
            return torch.zeros(())
        embedded = {"user": output.user, "pin": output.pin}
        return self.compatibility.weight * compatibility_loss(self.backward, embedded, inputs)

    @torch.inference_mode()
    def score(self, examples: Examples, rows: Rows) -> npt.NDArray[np.float32]:
        """Logits [N, T] of the rows."""

        def logits(inputs: dict[str, Tensor]) -> Tensor:
            return torch.stack(list(self.model(inputs).logits.values()), dim=1)

        return self._evaluated(logits, examples, rows, examples.labels.shape[1])

    @torch.inference_mode()
    def embed(self, entity: str, examples: Examples) -> npt.NDArray[np.float32]:
        """Embeddings [N, E] of users or Pins."""
        tower = self.model.embed_users if entity == "user" else self.model.embed_pins
        return self._evaluated(tower, examples, np.arange(len(examples)), self.model.config.embedding_dim)

    @torch.inference_mode()
    def cross(self, examples: Examples, rows: Rows) -> npt.NDArray[np.float32]:
        """Cross representations [N, H] of the rows."""
        return self._evaluated(self.model.cross, examples, rows, self.model.config.cross_dim)

    def _evaluated(
        self, function: Callable[[dict[str, Tensor]], Tensor], examples: Examples, rows: Rows, width: int
    ) -> npt.NDArray[np.float32]:
        """A function of the inputs over the rows; in a team each process computes its share."""
        self.model.eval()
        team = current_team()
        own = rows if team is None else rows[team.share(len(rows))]
        parts = [function(examples.tensors(batch)) for batch in batches(own, SCORING_BATCH)]
        found = torch.cat(parts) if parts else torch.empty(0, width)
        return np.asarray(found if team is None else team.gathered(found, len(rows)))

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


def _rows(inputs: dict[str, Tensor], own: slice) -> dict[str, Tensor]:
    return {name: values[own] for name, values in inputs.items()}
