"""What trackers are told of a report, and what the setting may say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from feast import FeatureStore

from tests.data.small_repo import SmallRepo
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
    (model,) = client.search_model_versions("name = 'headwater_ranking'")
    assert model.run_id == run.info.run_id
    assert model.source == (run_dir / "releases" / "r-0123456789ab").as_uri()


@pytest.fixture
def tracked_store(small_repo: SmallRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """The small repo with Feast's own MLflow integration, on plain files."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    repo = Path(shutil.copytree(small_repo.folder / "feature_repo", tmp_path / "feature_repo", symlinks=True))
    with (repo / "feature_store.yaml").open("a") as settings:
        settings.write("mlflow:\n  enabled: true\n")
    return FeatureStore(str(repo))


def test_feast_leads_from_a_recorded_model_to_its_feature_service(
    report: Report, tracked_store: FeatureStore, tmp_path: Path
) -> None:
    service = tracked_store.list_feature_services()[0].name
    kind = service.partition("__")[0]
    lineage = dataclasses.replace(LINEAGE, feature_services=(service,))
    tracking.record(report, tmp_path / "demo", lineage, ("mlflow",))
    assert tracked_store.mlflow.resolve_features(f"models:/headwater_{kind}/1") == service


def test_frame_of_our_repo_is_traced_by_feasts_own_integration(
    tracked_store: FeatureStore, small_repo: SmallRepo
) -> None:
    service = next(each for each in tracked_store.list_feature_services() if each.name.startswith("ranking"))
    shown = pd.DataFrame({"user_id": [1], "pin_id": [1], "event_timestamp": [small_repo.spec.window.test_from]})
    mlflow.set_experiment("theirs")
    with mlflow.start_run() as run:
        tracked_store.get_historical_features(shown, service, full_feature_names=True).to_df()
    assert mlflow.get_run(run.info.run_id).data.tags["feast.feature_service"] == service.name
