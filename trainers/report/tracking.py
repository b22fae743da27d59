"""A run's figures in MLflow and as TensorBoard event files, where the setting `HEADWATER_TRACKING` asks for them.

Nothing hosted is needed: MLflow's records go to `mlruns/` beside the runs unless `MLFLOW_TRACKING_URI` names another
place, event files to `tensorboard/` in the run. Both packages are the extra `tracking`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.report.schema import PAGE_FILE, REPORT_FILE, Report

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTING = "HEADWATER_TRACKING"
EXPERIMENT = "headwater"
_MODULES = {"mlflow": "mlflow", "tensorboard": "tensorboardX"}
_NO_METRIC_NAME = re.compile(r"[^\w./ -]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """What the models of a run were made from and became."""

    feature_services: tuple[str, ...]
    """Feast services that the downstream models read."""
    embedding_versions: tuple[str, ...]
    release: str | None
    """Release that holds the models."""
    project: str = "headwater"
    """Project of the Feast repo."""


def requested(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """What the setting names, `mlflow`, `tensorboard` or both; nothing where it is absent, empty or `off`.

    Raises:
        ValueError: It names something else, or a package that is not installed.
    """
    given = environment.get(SETTING, "").replace(" ", "")
    kinds = tuple(dict.fromkeys(each for each in given.split(",") if each not in ("", "off")))
    for kind in kinds:
        if kind not in _MODULES:
            raise ValueError(f"{SETTING} must name mlflow, tensorboard, both or off (got {kind!r}); correct it")
        if importlib.util.find_spec(_MODULES[kind]) is None:
            raise ValueError(
                f"{SETTING}={kind} needs the package {_MODULES[kind]} (got none installed); "
                "pip install 'headwater[tracking]', or unset it"
            )
    return kinds


def record(report: Report, run_dir: Path, lineage: Lineage, kinds: tuple[str, ...]) -> None:
    """Hand a report to each of the trackers; an earlier record of the same run directory is replaced."""
    writers: dict[str, Callable[[Report, Path, Lineage], None]] = {"mlflow": _mlflow, "tensorboard": _tensorboard}
    for kind in kinds:
        writers[kind](report, run_dir, lineage)


def metrics(report: Report) -> Iterator[tuple[str, float]]:
    """Every figure of a report by a name such as `lift/ctr/both/roc_auc`; a task's second ranker is named in it."""
    first = {row.task: row.ranker for row in reversed(report.lift)}
    for row in report.lift:
        task = row.task if row.ranker == first[row.task] else f"{row.task}/{row.ranker}"
        for name in ("roc_auc", "pr_auc", "log_loss", "normalised_entropy", "gauc", "ece", "roc_auc_lift_pct"):
            value = getattr(row, name)
            if value is not None:
                yield f"lift/{task}/{row.inputs}/{name}", value
    for found in report.retrieval:
        yield f"retrieval/{found.model}/recall_at_20", found.recall_at_20
        yield f"retrieval/{found.model}/ndcg_at_20", found.ndcg_at_20
    for step in report.steps:
        yield f"steps/{step.name}/seconds", step.seconds
    if report.core_hours is not None:
        yield "core_hours", report.core_hours


def series(report: Report) -> Iterator[tuple[str, int, float]]:
    """Figures of days, with the day's number since 1970 as the step."""
    for day in report.training:
        yield f"upstream/{day.model}/{day.task}/roc_auc", _number(day.day.toordinal()), day.roc_auc
    for moved in report.drift:
        yield f"drift/{moved.view}/cosine", _number(moved.day.toordinal()), moved.cosine


def _number(ordinal: int) -> int:
    return ordinal - 719_163


def _params(report: Report) -> dict[str, str]:
    window = report.window
    found = {
        "dataset": report.dataset,
        "seeds": ",".join(map(str, report.seeds)),
        "train": f"{window.train[0]:%Y-%m-%d}/{window.train[1]:%Y-%m-%d}",
        "test": f"{window.test[0]:%Y-%m-%d}/{window.test[1]:%Y-%m-%d}",
        "machine": report.machine or "",
        "command": report.command or "",
    }
    return {name: value for name, value in found.items() if value}


def _tags(report: Report, run_dir: Path, lineage: Lineage) -> dict[str, str]:
    """Lineage under the names that Feast's own MLflow integration uses, where it has one."""
    tags = {
        "mlflow.runName": run_dir.name,
        "mlflow.source.git.commit": report.commit or "",
        "feast.project": lineage.project,
        "feast.feature_service": ",".join(lineage.feature_services),
        "headwater.embedding_versions": ",".join(lineage.embedding_versions),
        "headwater.release": lineage.release or "",
        "headwater.run": str(run_dir.resolve()),
    }
    return {name: value for name, value in tags.items() if value}


def _mlflow(report: Report, run_dir: Path, lineage: Lineage) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    if "MLFLOW_TRACKING_URI" not in os.environ:
        # MLflow asks for a word before it writes plain files, which need no database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    place = os.environ.get("MLFLOW_TRACKING_URI") or (run_dir.resolve().parent / "mlruns").as_uri()
    client = MlflowClient(tracking_uri=place)
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
    mine = f"tags.`headwater.run` = '{run_dir.resolve()}'"
    for earlier in client.search_runs([experiment], filter_string=mine):
        client.delete_run(earlier.info.run_id)
    run = client.create_run(experiment).info.run_id
    moment = int(report.created_timestamp.timestamp() * 1000) if report.created_timestamp else 0
    points = [(name, 0, value) for name, value in metrics(report)] + list(series(report))
    rows = [Metric(_NO_METRIC_NAME.sub("_", name), value, moment, step) for name, step, value in points]
    params = [Param(name, value) for name, value in _params(report).items()]
    tags = [RunTag(name, value) for name, value in _tags(report, run_dir, lineage).items()]
    client.log_batch(run, params=params, tags=tags)
    for start in range(0, len(rows), 1_000):
        client.log_batch(run, metrics=rows[start : start + 1_000])
    for name in (REPORT_FILE, PAGE_FILE):
        if (run_dir / name).exists():
            client.log_artifact(run, str(run_dir / name))
    _register(client, run, run_dir, lineage)
    client.set_terminated(run)


def _register(client: MlflowClient, run: str, run_dir: Path, lineage: Lineage) -> None:
    """Make the release's models versions of `headwater_retrieval` and `headwater_ranking` that name their service.

    The tag is the one by which Feast's integration finds a model's feature service.
    """
    if lineage.release is None:
        return
    mine = {"headwater.run": str(run_dir.resolve())}
    for service in lineage.feature_services:
        name = f"{EXPERIMENT}_{service.partition('__')[0]}"
        if not client.search_registered_models(filter_string=f"name = '{name}'"):
            client.create_registered_model(name)
        for earlier in client.search_model_versions(f"name = '{name}'"):
            if mine.items() <= earlier.tags.items():
                client.delete_model_version(name, earlier.version)
        tags = mine | {"feast.feature_service": service, "headwater.release": lineage.release}
        source = (run_dir / "releases" / lineage.release).resolve().as_uri()
        client.create_model_version(name, source, run_id=run, tags=tags)


def _tensorboard(report: Report, run_dir: Path, lineage: Lineage) -> None:
    from tensorboardX import SummaryWriter

    folder = run_dir / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for name, value in metrics(report):
            writer.add_scalar(_NO_METRIC_NAME.sub("_", name).replace(" ", "_"), value, 0)
        for name, step, value in series(report):
            writer.add_scalar(name, value, step)
        words = _params(report) | _tags(report, run_dir, lineage)
        writer.add_text("run", "\n".join(f"- {name}: {value}" for name, value in words.items()), 0)
