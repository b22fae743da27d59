"""Training the two-tower model on engaged pairs, and embedding with it.

Dims: N rows, E width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.anomalies import AnomalyGuard
from trainers.data.engaged_pairs import Pairs
from trainers.data.examples import Examples, batches
from trainers.frequency import CountMinConfig, CountMinSketch
from trainers.hidden_vectors import hide_vectors
from trainers.losses import ContrastiveConfig, ContrastiveLoss
from trainers.retrieval.histories import learn_histories
from trainers.retrieval.model import TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import RetrievalRecipe

Vectors = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
SCORING_BATCH = 8192


def train_two_tower(
    config: TwoTowerConfig,
    recipe: RetrievalRecipe,
    pairs: Pairs,
    *,
    hidden_vectors: tuple[tuple[str, ...], ...],
    seed: int,
    histories: Examples | None = None,
) -> Iterator[TwoTower]:
    """The model after each epoch of the recipe, ready to score; the same object, which the next epoch changes.

    Whoever stops after n epochs has the model that a longer training had then: the schedule is that of all epochs.

    Args:
        pairs: Positives; Pins of the batch are each other's negatives, corrected for how often they occur.
        hidden_vectors: Groups of vector inputs, those of an entity in one; see `hide_vectors`.
        histories: Long histories of users that the table of Pins learns first.

    Raises:
        ValueError: There are fewer than two pairs.
        TrainingAnomalyError: A loss or gradient is not finite, or a loss has exploded.
    """
    if len(pairs.user_ids) < 2:
        raise ValueError(f"retrieval needs at least two engaged pairs to train on (got {len(pairs.user_ids)})")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = TwoTower(config)
    if histories is not None:
        learn_histories(
            model, recipe.histories, histories, batch_size=recipe.batch_size, temperature=recipe.temperature, seed=seed
        )
    loss_of = ContrastiveLoss(ContrastiveConfig(temperature=recipe.temperature))
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, recipe.epochs * math.ceil(len(pairs.user_ids) / recipe.batch_size), eta_min=recipe.lr / 10
    )
    sketch = CountMinSketch(CountMinConfig(seed=seed))
    sketch.update(pairs.pin_ids)
    log_q = torch.from_numpy(sketch.log_probability(pairs.pin_ids))
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        guard = AnomalyGuard(f"two-tower, seed {seed}, epoch {epoch}", remedy="lower the recipe's lr")
        for batch in batches(np.arange(len(pairs.user_ids)), recipe.batch_size, rng):
            alone, together = recipe.embedding_dropout, recipe.outage_dropout
            inputs = hide_vectors(pairs.examples.tensors(batch), hidden_vectors, alone=alone, together=together)
            _step(model, loss_of, optimizer, pairs, batch, inputs, log_q[batch], guard)
            schedule.step()
        yield model.eval()


def _optimizer(model: TwoTower, recipe: RetrievalRecipe) -> torch.optim.Optimizer:
    """AdamW; the weights of the blocks learn at their own rate and are not pulled to 0."""
    weights = model.weights()
    own = {id(weight) for weight in weights}
    others = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups: list[dict[str, Any]] = [
        {"params": others},
        {"params": weights, "lr": recipe.weights_lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _step(
    model: TwoTower,
    loss_of: ContrastiveLoss,
    optimizer: torch.optim.Optimizer,
    pairs: Pairs,
    batch: Keys,
    inputs: dict[str, Tensor],
    log_q: Tensor,
    guard: AnomalyGuard,
) -> None:
    loss = loss_of(
        model.queries(inputs),
        model.candidates(inputs),
        torch.from_numpy(pairs.pin_ids[batch]),
        torch.ones(len(batch), dtype=torch.bool),
        log_q,
        user_ids=torch.from_numpy(pairs.user_ids[batch]),
    )
    guard.check_loss(loss, {"contrastive": loss}, lambda: inputs)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    guard.check_gradients(model, lambda: inputs)
    optimizer.step()


@torch.inference_mode()
def embed(model: TwoTower, side: str, examples: Examples) -> Vectors:
    """Query or candidate vectors [N, E] of all rows."""
    tower = model.queries if side == "user" else model.candidates
    rows = np.arange(len(examples))
    parts = [tower(examples.tensors(batch)) for batch in batches(rows, SCORING_BATCH)]
    return np.asarray(torch.cat(parts)) if parts else np.empty((0, model.config.vector_dim), np.float32)
