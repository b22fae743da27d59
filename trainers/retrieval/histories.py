"""What long histories say of which Pins go together, learned by the table of Pins before it sees an engaged pair.

Each batch hides a share of all Pins. What is left of a user's histories has to find those of them that are hidden,
among all hidden ones: a denoising autoencoder whose softmax is sampled, evenly, by the hiding itself.
Source: Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, arXiv:1802.05814 (multinomial
likelihood, hidden inputs).
Dims: U users, L longest sequence, P Pins, H hidden Pins, N targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.anomalies import AnomalyGuard
from trainers.data.examples import Examples, batches
from trainers.modules.side import SequenceInputs
from trainers.retrieval.model import TwoTower
from trainers.retrieval.pin_table import PinTable
from trainers.retrieval.recipes import HistoryRecipe

Buckets = npt.NDArray[np.int64]


class _Hidden(NamedTuple):
    """What a batch hides."""

    buckets: Buckets
    """Buckets of the hidden Pins [H], sorted."""
    place: Buckets
    """Place of each bucket among them, -1 for one that is not hidden."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Corpus:
    """Pins of all histories."""

    buckets: Buckets
    """Buckets that occur [P], sorted."""
    log_share: Tensor
    """Log share of the histories' Pins that are in each bucket of the table."""


def learn_histories(
    model: TwoTower, recipe: HistoryRecipe, histories: Examples, *, batch_size: int, temperature: float, seed: int
) -> None:
    """Train the table of Pins of a model on long histories; nothing happens without a table or Pins in histories.

    Args:
        histories: Inputs of users [U]; those of the model's sequences that they lack are taken as empty.
        temperature: Of the training on engaged pairs that follows.

    Raises:
        TrainingAnomalyError: A loss or gradient is not finite, or a loss has exploded.
    """
    table = model.pin_table
    read = [each for each in model.config.remembered if each.pins in histories.inputs]
    if table is None or not read or not recipe.epochs:
        return
    corpus = _corpus(histories, read, model.config.sequence_buckets)
    if len(corpus.buckets) < 2:
        return
    rng = np.random.default_rng(seed)
    scalars = {id(each) for each in table.scalars()}
    tables = [each for each in table.parameters() if id(each) not in scalars]
    groups: list[dict[str, Any]] = [{"params": tables}, {"params": table.scalars(), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    steps = recipe.epochs * math.ceil(len(histories) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=recipe.lr / 10)
    guard = AnomalyGuard(f"two-tower on the long histories, seed {seed}", remedy="lower the history recipe's lr")
    for _ in range(recipe.epochs):
        for rows in batches(np.arange(len(histories)), batch_size, rng):
            hidden = _hide(corpus.buckets, recipe, rng, model.config.sequence_buckets)
            loss = _loss(table, histories.take(rows), read, hidden, corpus, temperature)
            if loss is not None:
                guard.check_loss(loss, {"histories": loss}, partial(histories.tensors, rows))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                guard.check_gradients(table, partial(histories.tensors, rows))
                optimizer.step()
            schedule.step()


def _corpus(histories: Examples, read: list[SequenceInputs], num_buckets: int) -> _Corpus:
    counts = sum(np.bincount(histories.inputs[each.pins].ravel(), minlength=num_buckets) for each in read)
    counts = np.asarray(counts, np.float64)
    counts[0] = 0.0
    smoothed = counts + 0.5
    log_share = torch.from_numpy(np.log(smoothed / smoothed.sum()).astype(np.float32))
    return _Corpus(buckets=np.flatnonzero(counts), log_share=log_share)


def _hide(buckets: Buckets, recipe: HistoryRecipe, rng: np.random.Generator, num_buckets: int) -> _Hidden:
    """A random share of the Pins, at least one and no more than the recipe's `max_hidden`."""
    count = max(1, min(int(recipe.hidden_share * len(buckets)), recipe.max_hidden))
    chosen = np.sort(rng.choice(buckets, count, replace=False))
    place = np.full(num_buckets, -1, np.int64)
    place[chosen] = np.arange(count)
    return _Hidden(buckets=chosen, place=place)


def _loss(
    table: PinTable,
    users: Examples,
    read: list[SequenceInputs],
    hidden: _Hidden,
    corpus: _Corpus,
    temperature: float,
) -> Tensor | None:
    """Mean cross-entropy of the hidden Pins of each user who has some; None where nobody has."""
    rows, places = _targets(users, read, hidden)
    if len(rows) == 0:
        return None
    asked, row = np.unique(rows, return_inverse=True)
    inputs = dict(_left(users.take(asked), table.sequences, read, hidden))
    chosen = torch.from_numpy(hidden.buckets)
    # The histories' own popularity is no taste, and a popularity prior brings that of the day later.
    logits = table.queries(inputs) @ table.rows(chosen).T / temperature + corpus.log_share[chosen]
    log_shares = F.log_softmax(logits, dim=1)[torch.from_numpy(row), torch.from_numpy(places)]
    return -log_shares.mean()


def _targets(users: Examples, read: list[SequenceInputs], hidden: _Hidden) -> tuple[Buckets, Buckets]:
    """Row and place among the hidden Pins of each hidden Pin of a user, once."""
    found = [hidden.place[users.inputs[each.pins]] for each in read]
    places = np.concatenate(found, axis=1)
    rows, columns = np.nonzero(places >= 0)
    pairs = np.unique(np.stack([rows, places[rows, columns]]), axis=1)
    return pairs[0], pairs[1]


def _left(
    users: Examples, sequences: tuple[SequenceInputs, ...], read: list[SequenceInputs], hidden: _Hidden
) -> Iterator[tuple[str, Tensor]]:
    """The sequences without the hidden Pins, and empty ones for those that are no history."""
    known: Mapping[str, npt.NDArray[np.int32]] = {each.pins: users.inputs[each.pins] for each in read}
    for each in sequences:
        pins = known.get(each.pins)
        kept = np.zeros((len(users), each.length), np.int64) if pins is None else pins * (hidden.place[pins] < 0)
        yield each.pins, torch.from_numpy(kept.astype(np.int64))
        if each.actions:
            yield each.actions, torch.zeros(len(users), each.length)
