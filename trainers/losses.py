"""Masked multi-task binary cross-entropy, and the contrastive loss between user and Pin vectors.

Source: DERM, arXiv:2509.04337 (supervised loss on the interaction tower, contrastive loss between the towers); logQ
correction after Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys
2019; uniform negatives beside the batch's after Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural
Networks in Recommendations", WWW 2020; task weights by uncertainty after Kendall, Gal and Cipolla, "Multi-Task Learning
Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR 2018, arXiv:1705.07115.
Dims: B batch, A anchors, C candidates, D width of a vector, U uniform negatives, N rows with a Pin.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainers.fake_negatives import fake_negative_importance


def masked_bce(
    logits: Float[Tensor, "B"],
    labels: Float[Tensor, "B"],
    weights: Float[Tensor, "B"] | None = None,
    importance: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy over the rows whose label is not NaN; exactly 0 when there are none.

    Args:
        weights: Weight of each row in the mean.
        importance: Factor of each row's cross-entropy, which the mean is not divided by.
    """
    defined = ~labels.isnan()
    row_weights = defined.to(logits.dtype) if weights is None else defined * weights
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0), reduction="none")
    if importance is not None:
        losses = losses * importance
    total = row_weights.sum()
    return (losses * row_weights).sum() / torch.where(total > 0, total, 1.0)


def multi_task_bce(
    logits: Mapping[str, Float[Tensor, "B"]],
    labels: Mapping[str, Float[Tensor, "B"]],
    task_weights: Mapping[str, float] | None = None,
    weights: Float[Tensor, "B"] | None = None,
    fake_negatives: Collection[str] = (),
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Weighted sum of the tasks' losses, and each task's own loss.

    Args:
        labels: 0 or 1; NaN where the task is not defined for the row. Tasks without logits are left out.
        task_weights: 1 for a task that is not named.
        weights: Weight of each row, not negative.
        fake_negatives: Tasks of which every row is there as a negative, and again as a positive once it is one.

    Raises:
        ValueError: A task with logits has no labels.
    """
    absent = sorted(set(logits) - set(labels))
    if absent:
        raise ValueError(f"every task needs labels (got none for {absent}; labels are {sorted(labels)})")
    parts = task_losses(logits, labels, weights, fake_negatives)
    scales = task_weights or {}
    total = torch.stack([scales.get(task, 1.0) * part for task, part in parts.items()]).sum()
    return total, {task: part.detach() for task, part in parts.items()}


def task_losses(
    logits: Mapping[str, Float[Tensor, "B"]],
    labels: Mapping[str, Float[Tensor, "B"]],
    weights: Float[Tensor, "B"] | None = None,
    fake_negatives: Collection[str] = (),
) -> dict[str, Float[Tensor, ""]]:
    """Each task's own loss; the arguments are those of `multi_task_bce`."""
    late = [task for task in logits if task in fake_negatives]
    importance = {task: fake_negative_importance(logits[task], labels[task]) for task in late}
    return {task: masked_bce(logit, labels[task], weights, importance.get(task)) for task, logit in logits.items()}


class UncertaintyWeighting(nn.Module):
    """Sum of the tasks' losses, each weighted by a learned precision: e^-s · loss + s / 2 with s the log variance.

    A task whose loss stays high is taken to be noisy and weighs less; s / 2 keeps all from being called noise.
    """

    def __init__(self, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def forward(
        self,
        logits: Mapping[str, Float[Tensor, "B"]],
        labels: Mapping[str, Float[Tensor, "B"]],
        fake_negatives: Collection[str] = (),
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The sum, and each task's own loss as it is; a task without a label in the batch moves nothing."""
        parts = task_losses(logits, labels, fake_negatives=fake_negatives)
        weighted = [
            ((-self.log_variances[task]).exp() * part + 0.5 * self.log_variances[task])
            * (~labels[task].isnan()).any().to(part.dtype)
            for task, part in parts.items()
        ]
        return torch.stack(weighted).sum(), {task: part.detach() for task, part in parts.items()}


class UniformNegatives(NamedTuple):
    """Pins drawn uniformly, with replacement, to be candidates beside those of the batch."""

    vectors: Tensor
    """Their vectors [U, D]."""
    ids: Tensor
    """Their keys [U]."""
    log_q: Tensor
    """Log of each one's share of training rows [U], finite."""
    num_pins: int
    """Pins that they were drawn from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveConfig:
    """Temperature of the contrastive loss and what counts as a negative."""

    temperature: float = 0.1
    """τ: logits are inner products divided by it."""
    learned_temperature: bool = False
    """Train τ from `temperature`, held between the two bounds."""
    min_temperature: float = 0.02
    """Lower bound of τ, positive."""
    max_temperature: float = 1.0
    """Upper bound of τ."""
    dedupe: bool = True
    """Use each Pin of the batch once, with its probability of being in the batch, and not once a row with Q(p)."""
    mask_known_positives: bool = True
    """Other Pins that the batch shows as the user's positives are no negatives; needs user ids."""
    symmetric: bool = False
    """Add the loss of finding the user among the batch's users; needs user ids."""

    def __post_init__(self) -> None:
        if not 0.0 < self.min_temperature < self.max_temperature:
            raise ValueError(
                f"temperature bounds must be positive and increase (got {self.min_temperature}, {self.max_temperature})"
            )
        if not self.min_temperature < self.temperature < self.max_temperature:
            bounds = f"between {self.min_temperature} and {self.max_temperature}"
            raise ValueError(f"temperature must lie strictly {bounds} (got {self.temperature})")


def sampled_softmax(
    logits: Float[Tensor, "A C"],
    log_q: Float[Tensor, "C"],
    targets: Int[Tensor, "A"],
    excluded: Bool[Tensor, "A C"],
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each anchor's target among its candidates after the logQ correction; 0 without anchors.

    The target is kept even where `excluded` is true. An anchor whose every other candidate is excluded contributes 0.
    """
    hidden = excluded.scatter(1, targets[:, None], False)
    corrected = (logits - log_q).masked_fill(hidden, -torch.inf)
    return F.cross_entropy(corrected, targets, reduction="sum") / max(logits.shape[0], 1)


class ContrastiveLoss(nn.Module):
    """Sampled softmax over in-batch negatives: logit = u·p/τ − log Q(p), for positives and negatives alike."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        share = (config.temperature - config.min_temperature) / (config.max_temperature - config.min_temperature)
        raw = torch.tensor(math.log(share / (1.0 - share)))
        self.raw_temperature = nn.Parameter(raw) if config.learned_temperature else None

    def temperature(self) -> Float[Tensor, ""]:
        """τ; a learned one is a sigmoid between its bounds, because a hard clamp would stop its gradient for good."""
        if self.raw_temperature is None:
            return torch.tensor(self.config.temperature)
        width = self.config.max_temperature - self.config.min_temperature
        return self.config.min_temperature + width * self.raw_temperature.sigmoid()

    def forward(
        self,
        users: Float[Tensor, "B D"],
        pins: Float[Tensor, "B D"],
        pin_ids: Int[Tensor, "B"],
        positive: Bool[Tensor, "B"],
        log_q: Float[Tensor, "B"],
        user_ids: Int[Tensor, "B"] | None = None,
        user_log_q: Float[Tensor, "B"] | None = None,
        uniform: UniformNegatives | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of the positive rows; 0 with finite gradients when there are none, or nothing to tell apart.

        Args:
            pin_ids: Key of each row's Pin. With `dedupe` the first row's vector stands for all rows of a key.
            positive: Rows that are anchors. All rows' Pins are candidates.
            log_q: Log of each Pin's share of training rows, finite.
            user_ids: Key of each row's user.
            user_log_q: The same as `log_q` for users, used by the symmetric direction; uniform when absent.
            uniform: Further candidates for the users; a Pin that the batch never shows gets negatives only from here.

        Raises:
            ValueError: The config needs user ids and none were given.
        """
        if user_ids is None and (self.config.mask_known_positives or self.config.symmetric):
            raise ValueError("user_ids must be given with mask_known_positives or symmetric (got None); pass them")
        loss = self._direction(users, pins, user_ids, pin_ids, positive, log_q, uniform)
        if not self.config.symmetric or user_ids is None:
            return loss
        flat = torch.zeros_like(log_q) - math.log(len(log_q)) if user_log_q is None else user_log_q
        return 0.5 * (loss + self._direction(pins, users, pin_ids, user_ids, positive, flat))

    def _direction(
        self,
        anchors: Tensor,
        candidates: Tensor,
        anchor_ids: Tensor | None,
        candidate_ids: Tensor,
        positive: Tensor,
        log_q: Tensor,
        uniform: UniformNegatives | None = None,
    ) -> Tensor:
        """Loss of the positive rows' anchors in finding their own candidate."""
        num_rows = len(candidate_ids)
        if uniform is not None:
            candidates = torch.cat([candidates, uniform.vectors])
            candidate_ids, log_q = torch.cat([candidate_ids, uniform.ids]), torch.cat([log_q, uniform.log_q])
        own_ids = candidate_ids[:num_rows][positive]
        rows, columns = candidate_rows(candidate_ids, dedupe=self.config.dedupe)
        excluded = candidate_ids[rows] == own_ids[:, None]
        if self.config.mask_known_positives and anchor_ids is not None:
            excluded = excluded | known_pairs(anchor_ids, candidate_ids, positive, rows)
        logits = (anchors[positive] / self.temperature()) @ candidates[rows].T
        chosen_log_q = log_q[rows]
        if self.config.dedupe:
            chosen_log_q = log_inclusion(chosen_log_q, num_rows, uniform)
        elif uniform is not None:
            share = len(uniform.ids) / num_rows / uniform.num_pins
            chosen_log_q = torch.logaddexp(chosen_log_q, torch.tensor(math.log(share)))
        return sampled_softmax(logits, chosen_log_q, columns[:num_rows][positive], excluded)


def candidate_rows(ids: Int[Tensor, "N"], *, dedupe: bool) -> tuple[Int[Tensor, "C"], Int[Tensor, "N"]]:
    """Rows that serve as candidates, and each row's own candidate as an index into them."""
    every = torch.arange(len(ids), device=ids.device)
    if not dedupe:
        return every, every
    unique, columns = torch.unique(ids, return_inverse=True)
    first = every.new_full((len(unique),), len(ids)).scatter_reduce(0, columns, every, "amin")
    return first, columns


def known_pairs(
    anchor_ids: Int[Tensor, "B"], candidate_ids: Int[Tensor, "N"], positive: Bool[Tensor, "B"], rows: Int[Tensor, "C"]
) -> Bool[Tensor, "A C"]:
    """Whether the batch holds a positive row with the anchor's key and the key of the candidate in `rows`.

    The first B of the N rows with a candidate are those of the batch.
    """
    anchor_keys, anchors = torch.unique(anchor_ids[positive], return_inverse=True)
    candidate_keys, candidates = torch.unique(candidate_ids, return_inverse=True)
    known = positive.new_zeros(len(anchor_keys), len(candidate_keys))
    known[anchors, candidates[: len(positive)][positive]] = True
    return known[anchors][:, candidates[rows]]


def log_inclusion(
    log_q: Float[Tensor, "C"], num_draws: int, uniform: UniformNegatives | None = None
) -> Float[Tensor, "C"]:
    """Log probability of being drawn at least once in `num_draws` draws of probability Q each, or in uniform ones.

    A deduplicated batch is a sample without multiplicities, so a Pin that is nearly always in the batch must be
    discounted by 1 and not by its share (Horvitz-Thompson in place of Hansen-Hurwitz weights).
    """
    # In float32 e^-100 is 0 and 1 - 1e-9 is 1, whose logarithms here would be infinite.
    log_absent = num_draws * torch.log1p(-log_q.clamp(min=-60.0).exp().clamp(max=1.0 - 1e-6))
    if uniform is not None:
        log_absent = log_absent + len(uniform.ids) * math.log1p(-min(1.0 / uniform.num_pins, 1.0 - 1e-6))
    return torch.log(-torch.expm1(log_absent))
