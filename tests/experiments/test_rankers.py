"""Figures of an experiment's rankers."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.experiments.rankers import Judge
from trainers.experiments.setting import Setting


def test_change_over_few_users_has_no_interval(opened: Setting) -> None:
    """Of two rows of a user each, one clicked, nothing can be said of other users: the bare ratio stands."""
    rows, job = opened.job.split.test, opened.job
    labels = job.data.examples.labels[rows, job.columns()[0]]
    few = np.array([np.flatnonzero(labels == value)[0] for value in (0, 1)])
    right = labels[None].astype(np.float32)
    tied = np.zeros_like(right)
    judge = Judge(job, samples=5)
    found = judge.row({"case": "few"}, right, {"change": tied}, few)
    assert (found["roc_auc"], found["change_pct"]) == (1.0, pytest.approx(100.0))
    assert "change_ci95" not in found
    whole = judge.row({"case": "all"}, right, {"change": tied})
    assert whole["change_ci95"] == pytest.approx((100.0, 100.0))
