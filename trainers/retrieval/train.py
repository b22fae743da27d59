"""Training the two-tower model on engaged pairs, and ranking the whole corpus with it.

Dims: U users, P Pins, E width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.data.examples import Examples, batches
from trainers.frequency import CountMinConfig, CountMinSketch
from trainers.losses import ContrastiveConfig, ContrastiveLoss
from trainers.retrieval.model import TwoTower, TwoTowerConfig
from trainers.retrieval.recipes import RetrievalRecipe

Vectors = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
SCORING_BATCH = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Engaged (user, Pin) pairs."""

    examples: Examples
    """Inputs of both sides."""
    user_ids: Keys
    pin_ids: Keys


def train_two_tower(
    config: TwoTowerConfig,
    recipe: RetrievalRecipe,
    pairs: Pairs,
    *,
    hidden_vectors: tuple[tuple[str, ...], ...],
    seed: int,
) -> Iterator[TwoTower]:
    """The model after each epoch of the recipe, ready to score; the same object, which the next epoch changes.

    Whoever stops after n epochs has the model that a longer training had then: the schedule is that of all epochs.

    Args:
        pairs: Positives; Pins of the batch are each other's negatives, corrected for how often they occur.
        hidden_vectors: Groups of vector inputs that are hidden together at `recipe.embedding_dropout`.

    Raises:
        ValueError: There are fewer than two pairs.
        FloatingPointError: The loss is not finite.
    """
    if len(pairs.user_ids) < 2:
        raise ValueError(f"retrieval needs at least two engaged pairs to train on (got {len(pairs.user_ids)})")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = TwoTower(config)
    loss_of = ContrastiveLoss(ContrastiveConfig(temperature=recipe.temperature))
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, recipe.epochs * math.ceil(len(pairs.user_ids) / recipe.batch_size), eta_min=recipe.lr / 10
    )
    sketch = CountMinSketch(CountMinConfig(seed=seed))
    sketch.update(pairs.pin_ids)
    log_q = torch.from_numpy(sketch.log_probability(pairs.pin_ids))
    for _ in range(recipe.epochs):
        model.train()
        for batch in batches(np.arange(len(pairs.user_ids)), recipe.batch_size, rng):
            inputs = _with_hidden(pairs.examples.tensors(batch), hidden_vectors, recipe.embedding_dropout)
            _step(model, loss_of, optimizer, pairs, batch, inputs, log_q[batch])
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


def _with_hidden(inputs: dict[str, Tensor], groups: tuple[tuple[str, ...], ...], share: float) -> dict[str, Tensor]:
    """The inputs with each group of vectors absent from a share of the rows."""
    for group in groups:
        kept = (torch.rand(len(inputs[group[0]]), 1) >= share).float()
        inputs |= {name: inputs[name] * kept for name in group}
    return inputs


def _step(
    model: TwoTower,
    loss_of: ContrastiveLoss,
    optimizer: torch.optim.Optimizer,
    pairs: Pairs,
    batch: Keys,
    inputs: dict[str, Tensor],
    log_q: Tensor,
) -> None:
    loss = loss_of(
        model.queries(inputs),
        model.candidates(inputs),
        torch.from_numpy(pairs.pin_ids[batch]),
        torch.ones(len(batch), dtype=torch.bool),
        log_q,
        user_ids=torch.from_numpy(pairs.user_ids[batch]),
    )
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss must be finite (got {loss.item()}); lower the recipe's lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def embed(model: TwoTower, side: str, examples: Examples) -> Vectors:
    """Query or candidate vectors [N, E] of all rows."""
    tower = model.queries if side == "user" else model.candidates
    rows = np.arange(len(examples))
    parts = [tower(examples.tensors(batch)) for batch in batches(rows, SCORING_BATCH)]
    return np.asarray(torch.cat(parts)) if parts else np.empty((0, model.config.vector_dim), np.float32)


def top_pins(
    queries: Vectors, candidates: Vectors, bias: Vectors, seen: list[Keys], k: int, *, chunk: int = 256
) -> Keys:
    """Positions [U, k] of the best Pins of each user by inner product plus bias; see `top_pins_by_bias`.

    Args:
        bias: Added to every candidate's score [P].
    """
    found: Keys = top_pins_by_bias(queries, candidates, bias[None], seen, k, chunk=chunk)[0]
    return found


def top_pins_by_bias(
    queries: Vectors, candidates: Vectors, biases: Vectors, seen: list[Keys], k: int, *, chunk: int = 256
) -> Keys:
    """Positions [N, U, k] of the best Pins of each user under each of N biases, those already seen left out.

    Equal scores rank by position. A user with fewer than k Pins left gets -1 in the last places.

    Args:
        biases: Added to every candidate's score [N, P].
        seen: Positions of the Pins that each user has met.
        chunk: Users whose scores of the whole corpus are held at once.

    Raises:
        ValueError: `k` is outside 1..P, or a vector or a bias is not finite.
    """
    if not 1 <= k <= len(candidates):
        raise ValueError(f"k must be in 1..{len(candidates)}, the size of the corpus (got {k})")
    for name, values in (("queries", queries), ("candidates", candidates), ("bias", biases)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite (got {int((~np.isfinite(values)).sum())} elements that are not)")
    found = np.empty((len(biases), len(queries), k), np.int64)
    for start in range(0, len(queries), chunk):
        products = queries[start : start + chunk] @ candidates.T
        for row, positions in enumerate(seen[start : start + chunk]):
            products[row, positions] = -np.inf
        for n, bias in enumerate(biases):
            scores = products + bias
            best = _best(scores, k)
            best[np.isneginf(np.take_along_axis(scores, best, axis=1))] = -1
            found[n, start : start + chunk] = best
    return found


def _best(scores: Vectors, k: int) -> Keys:
    """Positions of each row's k highest scores, best first, equal ones by position.

    Selection is many times faster than sorting, but which of equal scores it keeps differs from machine to machine.
    """
    part = torch.from_numpy(scores).topk(k, dim=1, sorted=False).indices.numpy()
    least = np.take_along_axis(scores, part, axis=1).min(axis=1, keepdims=True)
    tied = np.flatnonzero((scores >= least).sum(axis=1) > k)
    if len(tied):
        above, level = scores[tied] > least[tied], scores[tied] == least[tied]
        room = k - above.sum(axis=1, keepdims=True)
        kept = above | (level & (level.cumsum(axis=1) <= room))
        part[tied] = np.nonzero(kept)[1].reshape(-1, k)
    part.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1, kind="stable")
    best: Keys = np.take_along_axis(part, order, axis=1)
    return best
