"""Training a ranker with early stopping on the last training days.

Dims: N rows, T tasks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.anomalies import AnomalyGuard
from trainers.data.examples import Examples, Rows, batches
from trainers.entire_space import click_and_conversion, entire_space_bce
from trainers.hidden_vectors import hide_vectors
from trainers.losses import multi_task_bce
from trainers.metrics import log_loss
from trainers.ranking.model import Ranker, RankerConfig
from trainers.ranking.recipes import RankingRecipe

SCORING_BATCH = 16384


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRanker:
    """A ranker and how it came to be."""

    model: Ranker
    """The weights of the best epoch, in evaluation mode."""
    epoch: int
    """Passes over the training rows that the weights have seen."""
    validation_log_loss: tuple[float, ...]
    """Log loss of the first task on the validation rows after each pass."""


def train_ranker(
    config: RankerConfig,
    recipe: RankingRecipe,
    *,
    train: Examples,
    validation: Examples,
    hidden_vectors: tuple[tuple[str, ...], ...],
    seed: int,
    clicks: str | None = None,
    stepped: Callable[[], object] = bool,
) -> TrainedRanker:
    """Ranker of the epoch with the least validation log loss of the first task.

    Args:
        train: Rows to learn from; labels [N, T] in the order of `config.tasks`.
        validation: Later rows to stop by.
        hidden_vectors: Groups of vector inputs, those of an entity in one; see `hide_vectors`.
        seed: Seed of initial weights, row order and dropout.
        clicks: Task that the first one is conditional on, to learn both in the entire space; none to learn each task on
            the rows on which it is defined.
        stepped: Called after each of the `num_steps` of training.

    Raises:
        ValueError: The first task has labels of one class only, in training or validation.
        TrainingAnomalyError: A loss or gradient is not finite, or a loss has exploded.
    """
    _check_classes(config.tasks[0], train, validation)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Ranker(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = _cosine(optimizer, recipe, len(train))
    losses: list[float] = []
    best = copy.deepcopy(model.state_dict())
    for epoch in range(1, recipe.max_epochs + 1):
        model.train()
        guard = AnomalyGuard(f"ranker of {config.tasks[0]}, seed {seed}, epoch {epoch}", remedy="lower the recipe's lr")
        for batch in batches(np.arange(len(train)), recipe.batch_size, rng):
            alone, together = recipe.embedding_dropout, recipe.outage_dropout
            inputs = hide_vectors(train.tensors(batch), hidden_vectors, alone=alone, together=together)
            _step(model, optimizer, inputs, torch.from_numpy(train.labels[batch]), guard, clicks)
            schedule.step()
            stepped()
        losses.append(_validation_loss(model, validation))
        if losses[-1] < min(losses[:-1], default=math.inf):
            best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return TrainedRanker(model=model.eval(), epoch=int(np.argmin(losses)) + 1, validation_log_loss=tuple(losses))


def num_steps(recipe: RankingRecipe, num_rows: int) -> int:
    """Steps of training on so many rows."""
    return recipe.max_epochs * math.ceil(num_rows / recipe.batch_size)


def _check_classes(task: str, train: Examples, validation: Examples) -> None:
    for name, part in (("training", train), ("validation", validation)):
        labels = part.labels[:, 0]
        classes = np.unique(labels[~np.isnan(labels)])
        if len(classes) < 2:
            raise ValueError(
                f"task {task} needs both classes in the {name} days (got labels {classes.tolist()} on {len(part)} "
                "rows); move the dataset's window or leave the task out"
            )


def _cosine(
    optimizer: torch.optim.Optimizer, recipe: RankingRecipe, num_rows: int
) -> torch.optim.lr_scheduler.LambdaLR:
    total = num_steps(recipe, num_rows)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.1 + 0.45 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))
    )


def _step(
    model: Ranker,
    optimizer: torch.optim.Optimizer,
    inputs: dict[str, Tensor],
    labels: Tensor,
    guard: AnomalyGuard,
    clicks: str | None,
) -> None:
    logits = model(inputs)
    loss, parts = _loss(logits, dict(zip(logits, labels.unbind(1), strict=True)), clicks)
    guard.check_loss(loss, parts, lambda: inputs | {"labels": labels})
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    guard.check_gradients(model, lambda: inputs | {"labels": labels})
    optimizer.step()


def _loss(logits: dict[str, Tensor], labels: dict[str, Tensor], clicks: str | None) -> tuple[Tensor, dict[str, Tensor]]:
    """What gradients are taken of, and the losses that it is made of."""
    if clicks is None:
        return multi_task_bce(logits, labels)
    first = next(iter(logits))
    both = click_and_conversion(labels[clicks], labels[first])
    product = entire_space_bce(logits[clicks], logits[first], both)
    others, parts = multi_task_bce({task: logit for task, logit in logits.items() if task != first}, labels)
    return others + product, parts | {f"{clicks} and {first}": product.detach()}


@torch.inference_mode()
def predict(model: Ranker, examples: Examples) -> npt.NDArray[np.float32]:
    """Logits [N, T] of all tasks."""
    model.eval()
    rows: Rows = np.arange(len(examples))
    parts = [
        torch.stack(list(model(examples.tensors(batch)).values()), dim=1) for batch in batches(rows, SCORING_BATCH)
    ]
    return np.asarray(torch.cat(parts))


def _validation_loss(model: Ranker, validation: Examples) -> float:
    labels = validation.labels[:, 0]
    defined = ~np.isnan(labels)
    logits = predict(model, validation)[defined, 0]
    return log_loss(labels[defined], 1.0 / (1.0 + np.exp(-logits.astype(np.float64))))
