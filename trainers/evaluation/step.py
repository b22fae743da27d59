"""The steps `evaluate` and `report`: downstream models with and without embeddings, their figures, and a release."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import EmbeddingVersion, service_name
from feature_repo.encoding import InputSpec
from feature_repo.layout import open_store
from feature_repo.release.files import RELEASES
from feature_repo.release.manifest import ReleaseManifest
from feature_repo.versions import Catalogue
from trainers.data.dataset import DatasetSpec
from trainers.data.engaged_pairs import engaged_pairs
from trainers.data.engagements import read_engagements
from trainers.data.event_log import EventLog
from trainers.data.long_histories import read_histories, with_histories
from trainers.data.manifest import released_versions, version_for
from trainers.data.prepare import EVENT_LOG, OFFLINE, REPO, manifest, recipe
from trainers.data.ranking_data import click_task, read_ranking_data, split
from trainers.data.retrieval_data import RetrievalReader
from trainers.evaluation.arms import Arm, ArmResult, RankerJob, Scored, arms
from trainers.evaluation.boosted_arms import boosted_results
from trainers.evaluation.figures import released_figures
from trainers.evaluation.figures_file import EVALUATION, write_figures
from trainers.evaluation.release import ReleaseParts, write_release
from trainers.evaluation.retrieval import POPULARITY_DAYS, RetrievalJob, compare, validation_start
from trainers.evaluation.search import rankers_in_arms
from trainers.experiments.results import read_tables
from trainers.life.consumers import record_consumers
from trainers.life.operators import open_catalogue
from trainers.life.release_spaces import space_ids
from trainers.life.releases import promote_unless_chosen, record_release
from trainers.markers import read_marker
from trainers.progress import Progress
from trainers.report import page, tracking
from trainers.report.data_summary import summarise
from trainers.report.drift import drift_days
from trainers.report.embedding_map import embedding_map
from trainers.report.schema import (
    Calibration,
    Curve,
    Example,
    LiftRow,
    Optimum,
    Report,
    RetrievalRow,
    SliceRow,
    Step,
    TrainingDay,
    ViewFreshness,
    Window,
)
from trainers.steps import RunContext
from trainers.torch_setup import set_up_torch
from trainers.upstream_steps import read_progressive

WHO = "evaluate"
"""Who makes this step's changes in the catalogue."""
STEPS = ("ingest", "features", "apply", "train", "publish", "materialize", "evaluate")


class Evaluation:
    """One evaluation under way: rankers in every arm, retrieval, and what they leave."""

    def __init__(
        self, context: RunContext, progress: Progress, versions: tuple[EmbeddingVersion, ...] | None = None
    ) -> None:
        """
        Args:
            versions: Embedding versions to read, in place of those that the run trained.
        """
        self.context, self.progress = context, progress
        self.log = EventLog(context.path(EVENT_LOG))
        self.store = open_store(context.path(REPO))
        self.manifest, self._given = manifest(context), versions
        if versions is not None:
            self.manifest = replace(self.manifest, embeddings=versions)
        self.recipe = recipe(context)
        self.seeds = tuple(context.config.seed + i for i in range(context.config.num_seeds))
        self.data = read_ranking_data(self.log, self.store, self.manifest, self.recipe.ctr.sequence_buckets, progress)

    @property
    def spec(self) -> DatasetSpec:
        """Declaration of the dataset."""
        return self.log.spec

    @property
    def versions(self) -> tuple[EmbeddingVersion, ...]:
        """Embedding versions that a release reads."""
        return self._given or released_versions(self.manifest.embeddings)

    @property
    def unified(self) -> EmbeddingVersion | None:
        """Version of a model of both domains to compare with; none where there is none, or the release reads it."""
        return next((version for version in self.manifest.embeddings if version not in self.versions), None)

    def ranker_job(self, task: str, *, ctr: bool) -> RankerJob:
        """The CTR or CVR ranker on its rows."""
        domain = self.spec.task(task).domain
        others = tuple(each.name for each in self.spec.domain_tasks(domain) if each.name != task)
        sizes = self.recipe.ctr if ctr else self.recipe.cvr
        clicks = click_task(self.spec, task) if sizes.entire_space else None
        return RankerJob(
            spec=self.spec,
            data=self.data,
            recipe=sizes,
            task=task,
            tasks=tuple(dict.fromkeys((task, *others, *([clicks] if clicks else [])))),
            clicks=clicks,
            split=split(self.spec, self.data, task),
            seeds=self.seeds,
            num_labels=len(self.manifest.labels),
        )

    def ranker_arms(self, *, ctr: bool) -> list[Arm]:
        """Arms of the CTR or CVR ranker: its own domain's embeddings first."""
        own = version_for(self.versions, "engagement" if ctr else "conversion")
        return arms(own, [version for version in self.versions if version != own], self.unified)

    def ranker_jobs(self) -> dict[str, RankerJob]:
        """The rankers by `pctr` and, where there are conversions, `pcvr`."""
        return {
            name: self.ranker_job(task, ctr=name == "pctr")
            for name, task in (("pctr", self.spec.ctr_task), ("pcvr", self.spec.cvr_task))
            if task is not None
        }

    def rankers(self) -> dict[str, tuple[RankerJob, list[ArmResult]]]:
        """Every ranker in every arm, by `pctr` and `pcvr`; the last arm is the one that a release has."""
        jobs = self.ranker_jobs()
        arms = {name: self.ranker_arms(ctr=name == "pctr") for name in jobs}
        tried = {"pctr": self.recipe.ctr_tried, "pcvr": self.recipe.cvr_tried}
        workers = self.context.config.threads
        found = rankers_in_arms(jobs, arms, tried, workers=workers, progress=self.progress)
        return {name: (job, found[name]) for name, job in jobs.items()}

    def boosted(self) -> dict[str, list[Scored]]:
        """What LightGBM rankers say, by `pctr` and `pcvr`; nothing unless the recipe asks for them."""
        if self.recipe.boosted is None:
            return {}
        jobs = self.ranker_jobs()
        arms = {name: self.ranker_arms(ctr=name == "pctr") for name in jobs}
        workers = self.context.config.threads
        return boosted_results(jobs, arms, self.recipe.boosted, workers=workers, progress=self.progress)

    @property
    def retrieval_user(self) -> InputSpec:
        """Inputs of retrieval's user side: those of the rankers and long histories, which retrieval alone reads."""
        buckets, length = self.recipe.ctr.sequence_buckets, self.recipe.retrieval.histories.length
        return with_histories(self.data.user, self.manifest, buckets=buckets, length=length)

    def retrieval_reader(self, user: InputSpec, pin: InputSpec) -> RetrievalReader:
        """Reader of retrieval's features with these inputs."""
        service, offline = service_name("retrieval", self.manifest.embeddings), self.context.path(OFFLINE)
        return RetrievalReader(self.log, self.store, offline, service, user, pin)

    def retrieval_job(self) -> RetrievalJob:
        """Retrieval on the CTR task's rows, judged on the days after them."""
        window, user, rows = self.spec.window, self.retrieval_user, split(self.spec, self.data, self.spec.ctr_task)
        reader = self.retrieval_reader(user, self.data.pin)
        column = [task.name for task in self.spec.tasks].index(self.spec.ctr_task)
        return RetrievalJob(
            manifest=self.manifest,
            data=self.data,
            user=user,
            pairs=engaged_pairs(self.data, np.concatenate([rows.train, rows.validation]), column, self.store, user),
            histories=read_histories(self.log, self.store, user, window.train_from),
            validation=reader.period(validation_start(window), window.test_from, POPULARITY_DAYS),
            test=reader.period(window.test_from, window.until, POPULARITY_DAYS),
            engagements=lambda period, histories: read_engagements(self.log, period, histories=histories),
            recipe=self.recipe.retrieval,
            sequence_buckets=self.recipe.ctr.sequence_buckets,
            samples=self.recipe.bootstrap_samples,
            seeds=self.seeds,
        )


def run_evaluate(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Train retrieval and rankers with and without embeddings, judge them on the test days, and export a release."""
    set_up_torch(context.config.threads)
    evaluation = Evaluation(context, progress)
    rankers, boosted = evaluation.rankers(), evaluation.boosted()
    retrieval_job = evaluation.retrieval_job()
    retrieval_rows, two_towers = compare(
        retrieval_job,
        evaluation.versions,
        evaluation.unified,
        workers=context.config.threads,
        progress=progress,
    )
    with progress.stage("figures and intervals"):
        lift = write_figures(evaluation, rankers, boosted, retrieval_rows)
    versions = evaluation.versions
    catalogue = open_catalogue(context.directory)
    with progress.stage("export the release"):
        release, figures = write_release(
            ReleaseParts(
                rankers={name: (job, results[-1]) for name, (job, results) in rankers.items()},
                retrieval=two_towers,
                retrieval_job=retrieval_job,
                log=evaluation.log,
                candidates=lambda encoder: evaluation.retrieval_reader(InputSpec(side="user"), encoder),
                versions=versions,
                spaces=space_ids(catalogue, versions),
                services={name: service_name(name, versions) for name in ("retrieval", "ranking")},
                commit=commit() or "unknown",
                seed=evaluation.seeds[0],
                cutoff=evaluation.spec.window.until,
                figures=_release_figures(lift, retrieval_rows),
            ),
            context.path(RELEASES),
            workers=context.config.threads,
            progress=progress,
        )
    live = _put_live(context, catalogue, release)
    return figures | {"live": live} | {f"{row.model} recall@20": round(row.recall_at_20, 4) for row in retrieval_rows}


def _put_live(context: RunContext, catalogue: Catalogue, release: ReleaseManifest) -> bool:
    """Record the release and promote it, unless a person promoted another; says whether it is live."""
    why = f"evaluated by {command(context)}"
    record_consumers(catalogue, context.path(REPO))
    record_release(catalogue, context.directory, release, made_by="run", who=WHO, why=why)
    return promote_unless_chosen(catalogue, release.release, who=WHO, why=why)


def _release_figures(lift: list[LiftRow], retrieval: list[RetrievalRow]) -> dict[str, float]:
    """Figures of the released models, which are those of the last arms, and of the same without embeddings."""
    found: dict[str, float] = {}
    for name, task in (("pctr", "ctr"), ("pcvr", "cvr")):
        rows = [row for row in lift if row.task == task]
        for prefix, row in [(name, rows[-1]), (f"{name}_without_embeddings", rows[0])] if rows else []:
            found |= released_figures(prefix, row)
    return found | {"retrieval_recall_at_20": retrieval[-1].recall_at_20}


def run_report(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Write report.json and report.html from what the steps before left."""
    trackers = tracking.requested()
    with progress.stage("report"):
        report = build_report(context)
        report.save(context.directory)
        found = embedding_map(EventLog(context.path(EVENT_LOG)), context.path(OFFLINE), manifest(context).embeddings[0])
        page.write(report, context.directory, found)
        tracking.record(report, context.directory, _lineage(context), trackers)
    return {"lift_rows": len(report.lift), "report": str(context.path("report.html"))}


def _lineage(context: RunContext) -> tracking.Lineage:
    """What the downstream models read, and the release that holds them."""
    versions = released_versions(manifest(context).embeddings)
    marker = read_marker(context.directory, "evaluate")
    release = marker.figures.get("release") if marker else None
    return tracking.Lineage(
        feature_services=tuple(service_name(name, versions) for name in ("retrieval", "ranking")),
        embedding_versions=tuple(version.key for version in versions),
        release=str(release) if release else None,
    )


def build_report(context: RunContext) -> Report:
    """The report of a run whose evaluation is complete."""
    figures = json.loads(context.path(EVALUATION).read_text())
    spec = EventLog(context.path(EVENT_LOG)).spec
    data = summarise(context.path(EVENT_LOG))
    curve = [
        point for version in manifest(context).embeddings for point in read_progressive(context.directory, version.key)
    ]
    window = spec.window
    return Report(
        dataset=spec.name,
        commit=commit(),
        seeds=tuple(figures["seeds"]),
        window=Window(train=(window.train_from, window.test_from), test=(window.test_from, window.until)),
        steps=_steps(context.directory),
        lift=tuple(LiftRow.model_validate(row) for row in figures["lift"]),
        retrieval=tuple(RetrievalRow.model_validate(row) for row in figures["retrieval"]),
        core_hours=core_hours(context),
        experiments=read_tables(context.directory),
        created_timestamp=datetime.now(UTC),
        machine=f"{platform.machine()}, {context.config.threads} threads, Python {platform.python_version()}",
        command=command(context),
        intervals=(
            f"95 % intervals by bootstrap over users ({recipe(context).bootstrap_samples} resamples), paired: both "
            "rankers are judged on the same resampled users; figures are means over seeds."
        ),
        data=data.model_copy(
            update={"tasks": tuple(task.model_copy(update=figures["tasks"][task.task]) for task in data.tasks)}
        ),
        embeddings=tuple(figures["embeddings"]),
        training=tuple(TrainingDay.model_validate(point) for point in curve),
        calibration=tuple(Calibration.model_validate(row) for row in figures["calibration"]),
        curves=tuple(Curve.model_validate(row) for row in figures.get("curves", ())),
        drift=tuple(drift_days(context.path(OFFLINE), manifest(context))),
        freshness=tuple(ViewFreshness.model_validate(row) for row in figures.get("freshness", ())),
        slices=tuple(SliceRow.model_validate(row) for row in figures["slices"]),
        optimum=tuple(Optimum.model_validate(row) for row in figures["optimum"]),
        example=Example.model_validate(figures["example"]),
    )


def _steps(run: Path) -> tuple[Step, ...]:
    markers = [marker for name in STEPS if (marker := read_marker(run, name)) is not None]
    return tuple(Step(name=marker.step, seconds=marker.seconds, peak_mb=marker.peak_mb) for marker in markers)


def core_hours(context: RunContext) -> float:
    """Hours of the steps times the threads that they were given."""
    seconds = sum(step.seconds for step in _steps(context.directory))
    return round(seconds * context.config.threads / 3600, 4)


def command(context: RunContext) -> str:
    """Command that makes the same run."""
    config = context.config
    parts = ["headwater run", f"--dataset {config.dataset}"]
    parts += [f"--path {config.path}"] if config.path else []
    parts += [f"--seed {config.seed}", f"--seeds {config.num_seeds}"]
    parts += [f"--scale {config.scale}"] if config.scale != 1.0 else []
    parts += [f"--recipe {config.recipe}"] if config.recipe != "default" else []
    return " ".join([*parts, f"--out {config.out}"])


def commit() -> str | None:
    """Commit of the code, marked when the work tree differs from it; none outside a git checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).parent
    found = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None if found.returncode == 0 else None
