"""Figures of the arms: pairing, calibration, slices, and answers on data too small for an interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import ranker_job
from trainers.evaluation import slices
from trainers.evaluation.arms import Arm, ArmResult, RankerJob
from trainers.evaluation.figures import (
    TestRows,
    calibration_rows,
    curve_points,
    lift_rows,
    probabilities_of,
)
from trainers.evaluation.slices import slice_rows
from trainers.ranking.model import Ranker


@pytest.fixture(scope="module")
def job(small_repo: SmallRepo) -> RankerJob:
    """The CTR ranker."""
    return ranker_job(small_repo)


def result(job: RankerJob, name: str, quality: float) -> ArmResult:
    """An arm whose scores are the label plus noise, the less the better."""
    labels = job.data.examples.labels[:, 0]

    def scores(rows: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(0)
        return np.stack([quality * labels[rows] + random.normal(size=len(rows)) for _ in job.seeds]).astype(np.float32)

    return ArmResult(
        arm=Arm(inputs=name),  # type: ignore[arg-type]
        user=job.data.user,
        pin=job.data.pin,
        ranker=Ranker.__new__(Ranker),
        validation_logits=scores(job.split.validation),
        test_logits=scores(job.split.test),
    )


def test_lift_rows_compare_every_arm_with_the_first(job: RankerJob) -> None:
    base, better = result(job, "none", 1.0), result(job, "both", 3.0)
    rows = lift_rows(job, [base, better], "ctr", "DCNv2 + MMoE", samples=50)
    assert [row.inputs for row in rows] == ["none", "both"]
    assert rows[0].roc_auc_lift_pct is None
    assert rows[1].roc_auc_lift_pct == pytest.approx(100.0 * (rows[1].roc_auc / rows[0].roc_auc - 1.0))
    low, high = rows[1].roc_auc_lift_ci95 or (0.0, 0.0)
    assert 0.0 < low <= rows[1].roc_auc_lift_pct <= high
    assert rows[1].roc_auc == pytest.approx(np.mean(rows[1].roc_auc_by_seed))
    assert rows[1].log_loss < rows[0].log_loss
    assert rows[1].normalised_entropy is not None
    assert rows[1].normalised_entropy < 1.0
    for name in ("pr_auc", "gauc"):
        lift, (low, high) = (getattr(rows[1], f"{name}_lift_{part}") for part in ("pct", "ci95"))
        assert lift == pytest.approx(100.0 * (getattr(rows[1], name) / getattr(rows[0], name) - 1.0))
        assert low <= lift <= high
    assert rows[0].roc_auc_lift_seeds_ci95 is None
    narrow, wide = rows[1].roc_auc_lift_ci95, rows[1].roc_auc_lift_seeds_ci95
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_lift_rows_leave_out_a_lift_that_is_not_defined(job: RankerJob, caplog: pytest.LogCaptureFixture) -> None:
    # On a handful of rows a ranker may get every pair wrong; nothing can be compared with an AUC of 0.
    base, other = result(job, "none", -100.0), result(job, "both", 3.0)
    _, row = lift_rows(job, [base, other], "ctr", "DCNv2 + MMoE", samples=10)
    assert (row.roc_auc_lift_pct, row.roc_auc_lift_ci95) == (None, None)
    assert row.pr_auc_lift_pct is not None
    assert "no_lift inputs=both" in caplog.text


def test_lift_rows_have_no_gauc_when_no_user_has_both_classes_in_a_day(job: RankerJob) -> None:
    alone = replace(job, data=replace(job.data, user_ids=np.arange(len(job.data.user_ids))))
    (row,) = lift_rows(alone, [result(alone, "none", 1.0)], "ctr", "DCNv2 + MMoE", samples=10)
    assert row.gauc is None


def test_probabilities_are_calibrated_on_validation_rows_alone(job: RankerJob) -> None:
    base = result(job, "none", 1.0)
    before = probabilities_of(job, base, TestRows(job))
    labels = job.data.examples.labels.copy()
    labels[job.split.test, 0] = 1.0 - labels[job.split.test, 0]
    flipped = replace(job, data=replace(job.data, examples=replace(job.data.examples, labels=labels)))
    assert (probabilities_of(flipped, base, TestRows(flipped)) == before).all()
    rate = job.data.examples.labels[job.split.validation, 0].mean()
    assert before.mean() == pytest.approx(rate, abs=0.05)


def test_calibration_rows_hold_every_test_row_once(job: RankerJob) -> None:
    row = calibration_rows(job, result(job, "none", 1.0), "ctr", "DCNv2 + MMoE")
    assert sum(each.n for each in row.bins) == len(job.split.test)
    assert [each.predicted for each in row.bins] == sorted(each.predicted for each in row.bins)
    observed = sum(each.n * each.observed for each in row.bins) / len(job.split.test)
    assert observed == pytest.approx(job.data.examples.labels[job.split.test, 0].mean(), abs=1e-6)


def test_slice_rows_show_only_slices_with_enough_rows(job: RankerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    base, better = result(job, "none", 1.0), result(job, "both", 3.0)
    assert slice_rows(job, base, better, "ctr", samples=20) == []
    monkeypatch.setattr(slices, "MIN_SLICE_ROWS", 50)
    rows = slice_rows(job, base, better, "ctr", samples=20)
    sizes = {(row.slice, row.value): row.n_test for row in rows}
    surfaces = job.data.surfaces[job.split.test]
    assert sizes[("surface", "home")] == int((surfaces == "home").sum())
    assert all(row.roc_auc > row.roc_auc_base for row in rows)
    assert all(row.ece is not None and row.ece_base is not None and row.ece_by_chance is not None for row in rows)
    assert sum(count for (name, _), count in sizes.items() if name == "user_activity") <= len(surfaces)


def test_curves_pass_through_the_points_of_a_hand_made_ranking() -> None:
    labels = np.array([1, 0, 1, 0], np.float32)
    roc, precision_recall = curve_points(labels, np.array([4, 3, 2, 1], np.float32), num_points=2)
    assert roc == ((0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0))
    assert precision_recall == ((0.5, 1.0), (1.0, 0.6667))


def test_rows_of_equal_scores_enter_a_curve_together() -> None:
    labels = np.array([1, 0, 0, 0], np.float32)
    roc, precision_recall = curve_points(labels, np.zeros(4, np.float32), num_points=4)
    assert roc == ((0.0, 0.0), (1.0, 1.0), (1.0, 1.0))
    assert precision_recall == ((1.0, 0.25),)
