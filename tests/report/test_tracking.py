"""What trackers are told of a report, and what the setting may say."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from trainers.report import tracking
from trainers.report.schema import Report

LINEAGE = tracking.Lineage(
    feature_services=("ranking__ctr_v1",), embedding_versions=("ctr_v1",), release="r-0123456789ab"
)


@pytest.mark.parametrize("given", [{}, {"HEADWATER_TRACKING": ""}, {"HEADWATER_TRACKING": "off"}])
def test_tracking_is_off_unless_asked_for(given: dict[str, str]) -> None:
    assert tracking.requested(given) == ()


def test_unknown_tracker_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"must name mlflow, tensorboard, both or off \(got 'wandb'\)"):
        tracking.requested({"HEADWATER_TRACKING": "wandb"})


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="needs the package tensorboardX"):
        tracking.requested({"HEADWATER_TRACKING": "tensorboard"})


def test_metrics_are_the_figures_of_the_report(report: Report) -> None:
    found = dict(tracking.metrics(report))
    row = report.lift[1]
    assert found[f"lift/{row.task}/{row.inputs}/roc_auc"] == row.roc_auc
    assert found[f"retrieval/{report.retrieval[0].model}/recall_at_20"] == report.retrieval[0].recall_at_20
    assert f"lift/{report.lift[0].task}/none/roc_auc_lift_pct" not in found


def test_second_ranker_of_a_task_is_named(report: Report) -> None:
    row = report.lift[0]
    other = row.model_copy(update={"ranker": "LightGBM", "roc_auc": 0.5})
    found = dict(tracking.metrics(report.model_copy(update={"lift": (*report.lift, other)})))
    assert found[f"lift/{row.task}/{row.inputs}/roc_auc"] == row.roc_auc
    assert found[f"lift/{row.task}/LightGBM/{row.inputs}/roc_auc"] == 0.5


def test_days_are_counted_from_1970(report: Report) -> None:
    first = report.training[0]
    assert next(tracking.series(report)) == (
        f"upstream/{first.model}/{first.task}/roc_auc",
        (first.day - type(first.day)(1970, 1, 1)).days,
        first.roc_auc,
    )


def test_tensorboard_files_are_written_anew(report: Report, tmp_path: Path) -> None:
    for _ in range(2):
        tracking.record(report, tmp_path, LINEAGE, ("tensorboard",))
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"lift/ctr/both/roc_auc" in events.read_bytes()
    assert b"ranking__ctr_v1" in events.read_bytes()


def test_mlflow_keeps_one_run_with_its_lineage(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_dir = tmp_path / "demo"
    report.save(run_dir)
    for _ in range(2):
        tracking.record(report, run_dir, LINEAGE, ("mlflow",))
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["feast.feature_service"] == "ranking__ctr_v1"
    assert run.data.tags["headwater.release"] == "r-0123456789ab"
    assert run.data.params["dataset"] == report.dataset
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.json"]
