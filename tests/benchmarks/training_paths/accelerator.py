"""The same model on a GPU, in bfloat16: examples a second, and the share of what a plain matrix product reaches there.

Batches lie on the device beforehand: what is measured is the step, not how rows get there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.training_paths.made_rows import Sizes, made_rows, upstream_config
from trainers.losses import ContrastiveConfig, ContrastiveLoss, multi_task_bce
from trainers.upstream.model import UpstreamModel
from trainers.upstream.recipes import UpstreamRecipe

BATCH_SIZES = (8192, 32768, 131072)
MATRIX = 8192
NO_GPU = "no GPU: torch.cuda.is_available() is False"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFigures:
    """What one batch size reaches."""

    batch_size: int
    examples_per_second: float
    spread: float
    matmul_flops: float
    """Floating-point operations a second of a plain matrix product of the same numbers."""
    peak_mb: float
    """Memory of the device, MiB; 0 where it is the processor's."""


def skipped() -> str | None:
    """Why nothing can be measured here; none where it can."""
    return None if torch.cuda.is_available() else NO_GPU


def measure(
    recipe: UpstreamRecipe,
    sizes: Sizes,
    *,
    repeats: int,
    steps: int,
    device: str = "cuda",
    batch_sizes: Sequence[int] = BATCH_SIZES,
    matrix: int = MATRIX,
) -> list[DeviceFigures]:
    """Figures of every batch size.

    Args:
        steps: Training steps of one repetition.
    """
    found = []
    for batch_size in batch_sizes:
        _forget_peak(device)
        step = _step(replace(recipe, batch_size=batch_size), sizes, device)
        step()
        rates = [batch_size * steps / _timed(step, steps, device) for _ in range(repeats)]
        product = _product(matrix, device)
        product()
        flops = [2.0 * matrix**3 * steps / _timed(product, steps, device) for _ in range(repeats)]
        found.append(
            DeviceFigures(
                batch_size=batch_size,
                examples_per_second=statistics.median(rates),
                spread=max(rates) - min(rates),
                matmul_flops=statistics.median(flops),
                peak_mb=torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0,
            )
        )
    return found


def _timed(work: Callable[[], object], times: int, device: str) -> float:
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _synchronize(device)
    return time.perf_counter() - started


def _product(matrix: int, device: str) -> Callable[[], Tensor]:
    left, right = (torch.randn(matrix, matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
    return lambda: left @ right


def _step(recipe: UpstreamRecipe, sizes: Sizes, device: str) -> Callable[[], None]:
    """One training step on the same rows every time."""
    torch.manual_seed(1)
    model = UpstreamModel(upstream_config(recipe, sizes, sparse=False)).to(device).train()
    contrastive = ContrastiveLoss(ContrastiveConfig(temperature=recipe.temperature))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.daily_lr, fused=True)
    rows = made_rows(sizes, recipe.batch_size, seed=2)
    inputs = {name: each.to(device) for name, each in rows.examples.tensors(np.arange(recipe.batch_size)).items()}
    labels = torch.from_numpy(rows.examples.labels).to(device)
    users, pins = (torch.from_numpy(each).to(device) for each in (rows.user_ids, rows.pin_ids))
    log_q = torch.full((recipe.batch_size,), -float(np.log(sizes.pin_buckets)), device=device)
    # All pairs of a large batch would be more than the model itself: anchors come from a few thousand of its rows.
    chosen = slice(0, min(recipe.batch_size, 4096))

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            output = model(inputs)
        logits = {task: each.float() for task, each in output.logits.items()}
        supervised, _ = multi_task_bce(logits, dict(zip(logits, labels.unbind(1), strict=True)))
        positive = (labels[chosen] == 1.0).any(dim=1)
        pairs = (each.float()[chosen] for each in (output.user, output.pin))
        other = contrastive(*pairs, pins[chosen], positive, log_q[chosen], user_ids=users[chosen])
        optimizer.zero_grad()
        (supervised + recipe.contrastive_weight * other).backward()
        optimizer.step()

    return step


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
