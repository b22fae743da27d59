"""A report with every section; all its figures are invented."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from trainers.report.schema import (
    Calibration,
    CalibrationBin,
    Data,
    EmbeddingCoverage,
    Example,
    Inputs,
    LiftRow,
    Optimum,
    Report,
    RetrievalRow,
    ServedRoute,
    SliceRow,
    Step,
    Surface,
    TableCount,
    Task,
    TrainingDay,
    Window,
)

_START = datetime(2022, 4, 25, tzinfo=UTC)
_LIFTS: dict[tuple[str, Inputs], tuple[float, float]] = {
    ("ctr", "user"): (1.11, 0.22),
    ("ctr", "pin"): (0.44, 0.20),
    ("ctr", "both"): (2.22, 0.33),
    ("ctr", "both_domains"): (2.33, 0.34),
    ("cvr", "user"): (0.33, 0.66),
    ("cvr", "pin"): (-1.99, 0.77),
    ("cvr", "both"): (0.44, 0.88),
    ("cvr", "both_domains"): (0.99, 0.95),
}
"""Lift and half the width of its interval, percent."""


def _lift_row(task: str, inputs: Inputs) -> LiftRow:
    base = {"ctr": 0.7, "cvr": 0.66}[task]
    if inputs == "none":
        return LiftRow(
            task=task, ranker="dcn_mmoe", inputs=inputs, n_test=44444, roc_auc=base, pr_auc=0.6, log_loss=0.6111,
            gauc=0.61, ece=0.0222, roc_auc_by_seed=(base - 0.001, base + 0.001),
        )  # fmt: skip
    lift, half = _LIFTS[task, inputs]
    auc = base * (1 + lift / 100)
    return LiftRow(
        task=task, ranker="dcn_mmoe", inputs=inputs, n_test=44444, roc_auc=auc, pr_auc=0.6 * (1 + lift / 90),
        log_loss=0.6111 - lift / 200, gauc=0.61 + lift / 300, ece=0.0111, roc_auc_lift_pct=lift,
        roc_auc_lift_ci95=(lift - half, lift + half), pr_auc_lift_pct=lift / 0.9,
        roc_auc_by_seed=(auc - 0.001, auc + 0.001),
    )  # fmt: skip


def _data() -> Data:
    return Data(
        title="Invented video log",
        license="CC BY-SA 4.0 (invented)",
        citation="A. Nobody and B. Nobody: An invented log. Proceedings of Nothing, 2022.",
        impression="A video shown to a user on one of the app's tabs.",
        click="The user opened the video, or played it for 7 seconds where it plays by itself.",
        conversion="A long view after a click.",
        num_days=14,
        warnings=("label follow is rare",),
        num_users=22222,
        num_pins=6666,
        tables=(
            TableCount(table="impressions", read=222222, kept=216666, quarantined={"duplicate": 5460, "in future": 96}),
            TableCount(table="users", read=22222, kept=22222, quarantined={}),
            TableCount(table="pins", read=6666, kept=6660, quarantined={"negative pin_id": 6}),
        ),
        label_rates={"click": 0.4444, "long_view": 0.3111, "like": 0.0171, "follow": 0.0013},
        surfaces=tuple(
            Surface(surface=str(i), impressions=111111 // (i + 1), label_rates={"click": 0.5 / (i + 1), "like": 0.01})
            for i in range(6)
        ),
        tasks=(
            Task(task="ctr", label="click", n_train=111111, n_test=44444, positive_rate=0.4444),
            Task(task="cvr", label="long_view", given="click", n_train=55555, n_test=22222, positive_rate=0.6999),
        ),
    )


def _training() -> tuple[TrainingDay, ...]:
    tasks = {"ctr": ("click", "long_view", "like"), "cvr": ("follow", "profile_enter")}
    return tuple(
        TrainingDay(model=model, day=date(2022, 4, 26 + d) if d < 5 else date(2022, 5, d - 4), task=task,
                    roc_auc=0.6 + 0.04 * i + 0.011 * d - 0.0005 * d * d, n=11111)
        for model, names in tasks.items() for i, task in enumerate(names) for d in range(12)
    )  # fmt: skip


def _embeddings() -> tuple[EmbeddingCoverage, ...]:
    return tuple(
        EmbeddingCoverage(
            view=f"{entity}_embedding_{model}_v1", entity=entity, model=model, version=1, dim=32, ttl_hours=72,
            n_rows=44444, present=0.81, missing=0.13, outside_max_age=0.06, median_age_hours=11.5, num_vectors=22222,
        )
        for model in ("ctr", "cvr") for entity in ("user", "pin")
    )  # fmt: skip


def _calibration(task: str, inputs: Inputs, tilt: float) -> Calibration:
    predicted = [0.05 + 0.09 * i for i in range(10)]
    bins = tuple(CalibrationBin(predicted=p, observed=p + tilt * p * (1 - p), n=1111) for p in predicted)
    return Calibration(task=task, ranker="dcn_mmoe", inputs=inputs, bins=bins)


def _slice_rows(task: str, name: str, values: tuple[str, ...]) -> tuple[SliceRow, ...]:
    return tuple(
        SliceRow(task=task, slice=name, value=value, n_test=22222 // (i + 1), roc_auc_base=0.7,
                 roc_auc=0.7 * (1 + (2 - i) / 100), lift_pct=2.0 - i, ci95=(1.3 - 1.5 * i, 2.7 - 0.5 * i))
        for i, value in enumerate(values)
    )  # fmt: skip


def _retrieval() -> tuple[RetrievalRow, ...]:
    return (
        RetrievalRow(model="most_popular", recall_at_20=0.1111, ndcg_at_20=0.0555, ci95=(0.10, 0.12), n_users=2222),
        RetrievalRow(model="two_tower", recall_at_20=0.1444, ndcg_at_20=0.0777, ci95=(0.13, 0.158), n_users=2222),
        RetrievalRow(
            model="two_tower with embeddings",
            recall_at_20=0.1888,
            ndcg_at_20=0.0999,
            ci95=(0.174, 0.203),
            n_users=2222,
            recall_gain=0.0444,
            recall_gain_ci95=(0.03, 0.06),
        ),
    )


def fake_report() -> Report:
    """A report with every section filled."""
    return Report(
        dataset="invented",
        commit="0123456789abcdef0123456789abcdef01234567",
        seeds=(1, 2),
        window=Window(
            train=(_START + timedelta(days=3), _START + timedelta(days=11)),
            test=(_START + timedelta(days=11), _START + timedelta(days=14)),
        ),
        steps=(
            Step(name="ingest", seconds=4.4, peak_mb=444.0),
            Step(name="features", seconds=22.2, peak_mb=888.0),
            Step(name="upstream", seconds=222.2, peak_mb=2222.0),
            Step(name="evaluate", seconds=111.1, peak_mb=2444.0),
        ),
        lift=tuple(
            _lift_row(task, inputs)
            for task in ("ctr", "cvr")
            for inputs in ("none", "user", "pin", "both", "both_domains")
        ),
        retrieval=_retrieval(),
        experiments=_experiments(),
        created_timestamp=datetime(2022, 5, 9, 12, 34, tzinfo=UTC),
        machine="2 CPU cores, 24 GB, Linux, Python 3.11.7",
        command="headwater run --dataset invented --out runs/invented --seed 1",
        intervals="Bootstrap over users, 1,000 resamples, the same for both rankers, both seeds averaged.",
        data=_data(),
        embeddings=_embeddings(),
        training=_training(),
        calibration=(
            _calibration("ctr", "none", 0.1),
            _calibration("ctr", "both", 0.02),
            _calibration("cvr", "none", -0.15),
            _calibration("cvr", "both", -0.05),
        ),
        slices=(
            *_slice_rows("ctr", "surface", ("0", "1", "2", "4")),
            *_slice_rows("ctr", "user_activity", ("new", "1 to 9", "10 to 99", "100 and more")),
        ),
        optimum=(Optimum(task="ctr", roc_auc=0.7777, log_loss=0.5555),),
        served=(
            ServedRoute(route="/v1/recommend", size=10, n_requests=222, p50_ms=11.1, p99_ms=22.2),
            ServedRoute(route="/v1/rank", size=100, n_requests=222, p50_ms=4.4, p99_ms=8.8),
        ),
        example=Example(user_id=712, surface="1", pin_ids=(11, 22, 33)),
    )


def _experiments() -> dict[str, tuple[dict[str, Any], ...]]:
    """One row of each kind that the studies have."""
    lift = {"roc_auc": 0.7777, "gauc": 0.6666}
    stale = {"change_to_fresh_pct": -0.44, "change_to_fresh_ci95": (-0.66, -0.22)}
    return {
        "upgrade": (
            {"case": "version v, still refreshed", **lift},
            {"case": "retrained, Procrustes", **lift, "change_to_v_pct": -0.11, "change_to_v_ci95": (-0.22, 0.02)},
        ),
        "aggregation": (
            {"training": "warm start", "aggregation": "latest", **lift, "lift_pct": 1.11, "lift_ci95": (0.9, 1.3)},
            {"training": "none", "aggregation": "no embeddings", **lift},
        ),
        "staleness": (
            {"model": "CTR ranker", "vectors": "fresh", "age_days": 0, **lift},
            {"model": "CTR ranker", "vectors": "3 days older", "age_days": 3, **lift, **stale},
            {"model": "CTR ranker", "vectors": "missing", **lift, **stale},
            {"model": "two-tower", "vectors": "fresh", "age_days": 0, "recall_at_20": 0.1111},
            {"model": "two-tower", "vectors": "3 days older", "age_days": 3, "recall_at_20": 0.0999, **stale},
        ),
        "refresh_cost": (
            {"way": "full retrain", "aggregation": "latest", "cpu_seconds": 444.4, **lift},
            {
                "way": "one day's refresh",
                "aggregation": "latest",
                "cpu_seconds": 22.2,
                "share_of_cpu_seconds_pct": 5.0,
                **lift,
                "change_to_retrain_pct": -0.03,
                "change_to_retrain_ci95": (-0.13, 0.08),
            },
        ),
    }


def bare_report() -> Report:
    """A report of a run that measured nothing but its window."""
    full = fake_report()
    return Report(dataset=full.dataset, seeds=full.seeds, window=full.window)


@pytest.fixture(scope="session", name="report")
def report_fixture() -> Report:
    return fake_report()


@pytest.fixture(scope="session", name="bare")
def bare_fixture() -> Report:
    return bare_report()
