"""The same model in a plain training loop: rows from a `DataLoader`, collated one by one, and torch's own AdamW.

What most people would write first. Losses, sizes, batches and the estimate of Q are those of `UpstreamTrainer`; nothing
else of its engine is used: no batched reads, no row-wise gradients of id tables, no settings of the allocator.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trainers.frequency import CountMinConfig, CountMinSketch
from trainers.losses import ContrastiveConfig, ContrastiveLoss, multi_task_bce
from trainers.upstream.model import UpstreamConfig, UpstreamModel
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import MAX_GRADIENT_NORM, UpstreamExamples

Row = dict[str, Tensor]


class RowDataset(Dataset[Row]):
    """One row after the other, as a map-style dataset hands them out."""

    def __init__(self, data: UpstreamExamples) -> None:
        self._inputs, self._data = data.examples.inputs, data

    def __len__(self) -> int:
        return len(self._data.user_ids)

    def __getitem__(self, row: int) -> Row:
        found = {name: torch.from_numpy(np.asarray(values[row])) for name, values in self._inputs.items()}
        labels = torch.from_numpy(self._data.examples.labels[row])
        keys = torch.tensor(self._data.user_ids[row]), torch.tensor(self._data.pin_ids[row])
        return found | {"labels": labels, "user_ids": keys[0], "pin_ids": keys[1]}


class PlainLoop:
    """The model with what a step needs."""

    def __init__(self, config: UpstreamConfig, recipe: UpstreamRecipe, seed: int) -> None:
        torch.manual_seed(seed)
        self._recipe, self.model = recipe, UpstreamModel(config)
        self._contrastive = ContrastiveLoss(ContrastiveConfig(temperature=recipe.temperature))
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.daily_lr, weight_decay=recipe.weight_decay
        )
        self._sketch = CountMinSketch(CountMinConfig(half_life=float(1 << 20), seed=seed))

    def fit(self, data: UpstreamExamples) -> float:
        """One pass over the rows in random order; returns the mean loss."""
        self.model.train()
        return float(np.mean([self._step(batch) for batch in self._batches(data)]))

    def _batches(self, data: UpstreamExamples) -> Iterator[Row]:
        yield from DataLoader(RowDataset(data), batch_size=self._recipe.batch_size, shuffle=True)

    def _step(self, batch: Row) -> float:
        labels, pin_ids = batch["labels"], batch["pin_ids"]
        self._sketch.update(pin_ids.numpy())
        inputs = {name: each if each.is_floating_point() else each.long() for name, each in batch.items()}
        output = self.model(inputs)
        by_task = dict(zip(output.logits, labels.unbind(1), strict=True))
        supervised, _ = multi_task_bce(output.logits, by_task)
        contrastive = self._contrastive(
            output.user,
            output.pin,
            pin_ids,
            (labels == 1.0).any(dim=1),
            torch.from_numpy(self._sketch.log_probability(pin_ids.numpy())),
            user_ids=batch["user_ids"],
        )
        loss: Tensor = supervised + self._recipe.contrastive_weight * contrastive
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        return loss.item()
