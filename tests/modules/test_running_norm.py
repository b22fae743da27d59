"""Running moments against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainers.modules.running_norm import RunningNorm


def column(*values: float) -> Tensor:
    return torch.tensor([[value] for value in values])


def test_running_norm_uses_the_moments_of_all_batches_so_far() -> None:
    norm = RunningNorm(1)
    norm(column(1.0, 3.0), column(0.0, 0.0))
    # Of 1, 3, 5, 7 the mean is 4 and the variance 5.
    standardised = norm(column(5.0, 7.0), column(0.0, 0.0))
    torch.testing.assert_close(standardised, column(1.0, 3.0) / 5**0.5)


def test_running_norm_leaves_missing_numbers_out_and_at_zero() -> None:
    norm = RunningNorm(1)
    # Without the missing 99 the mean is 2 and the variance 1.
    assert norm(column(1.0, 99.0, 3.0), column(0.0, 1.0, 0.0)).flatten().tolist() == pytest.approx([-1.0, 0.0, 1.0])


def test_running_norm_stands_still_in_evaluation() -> None:
    norm = RunningNorm(1)
    norm(column(1.0, 3.0), column(0.0, 0.0))
    before = {name: buffer.clone() for name, buffer in norm.state_dict().items()}
    norm.eval()(column(100.0), column(0.0))
    assert all(torch.equal(before[name], buffer) for name, buffer in norm.state_dict().items())


def test_running_norm_forgets_rows_beyond_its_window() -> None:
    norm = RunningNorm(1, window=2.0)
    for _ in range(60):
        norm(column(0.0, 2.0), column(0.0, 0.0))
    for _ in range(60):
        norm(column(10.0, 12.0), column(0.0, 0.0))
    assert norm.mean.item() == pytest.approx(11.0, abs=1e-3)
