"""A release on other embedding versions than the run's first ones: its models are trained anew, as `evaluate` does.

The recipe, the window, the judged days, the calibration and the random choices are those of the step; of its arms only
the one that is released is trained. Finished models are kept until the release is there, so that a kill costs the
models under way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from feature_repo.encoding import InputSpec
from feature_repo.release.files import RELEASES
from feature_repo.release.manifest import ReleaseManifest
from feature_repo.versions import ReleaseState
from trainers.commit import commit
from trainers.data.prepare import EVENT_LOG
from trainers.evaluation.arms import ArmResult, RankerJob, SeedResult, collected, run_seed
from trainers.evaluation.figures import lift_rows, released_figures
from trainers.evaluation.kept_models import KeptModels
from trainers.evaluation.release import ReleaseParts, write_release
from trainers.evaluation.retrieval import RetrievalArm, RetrievalJob, restored_two_tower, two_tower
from trainers.evaluation.retrieval_figures import Figures, Prior
from trainers.evaluation.step import Evaluation
from trainers.forked import map_forked
from trainers.life.home import Home
from trainers.life.releases import record_release, refuse_given_up, verified_release
from trainers.life.requests import Request
from trainers.life.retraining import retraining_folder
from trainers.life.trainable import TrainableVersions, trainable_versions
from trainers.progress import Progress
from trainers.run_lock import run_lock
from trainers.torch_setup import set_up_torch

_WEIGHTS = "weights."
_RECIPE_PARTS = ("ctr", "cvr", "retrieval", "windows_days", "sequence_length", "activity_ttl_hours")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What would be trained, and what is there already."""

    chosen: TrainableVersions
    seeds: tuple[int, ...]
    retrieval: str
    """Name of the retrieval model with all its seeds."""
    rankers: tuple[str, ...]
    """Names of the rankers, each of one seed."""
    kept: KeptModels

    @property
    def models(self) -> tuple[str, ...]:
        """Names of everything that must be trained."""
        return (self.retrieval, *self.rankers)

    @property
    def missing(self) -> tuple[str, ...]:
        """Models that are not trained yet."""
        return tuple(name for name in self.models if not self.kept.has(name))


def planned(home: Home, named: Sequence[str], num_seeds: int) -> Plan:
    """What a release on the named versions needs; reads, and writes nothing.

    Raises:
        ValueError: No release can be trained on them; as `trainable_versions`.
    """
    if num_seeds < 1:
        raise ValueError(f"--seeds must be at least 1 (got {num_seeds}); leave it out for one")
    chosen = trainable_versions(home, named)
    seeds = tuple(home.context.config.seed + number for number in range(num_seeds))
    tasks = {"pctr": home.log.spec.ctr_task, "pcvr": home.log.spec.cvr_task}
    rankers = [_ranker_name(name, seed) for name, task in tasks.items() if task is not None for seed in seeds]
    kept = KeptModels(retraining_folder(home.run, chosen.spaces), _fingerprint(home, chosen))
    return Plan(chosen=chosen, seeds=seeds, retrieval=_retrieval_name(seeds), rankers=tuple(rankers), kept=kept)


def create_from_versions(
    home: Home,
    named: Sequence[str],
    progress: Progress,
    *,
    num_seeds: int = 1,
    who: str,
    why: str,
    request: Request | None = None,
) -> ReleaseManifest:
    """Train a release on the named versions and record it as a candidate; the same call goes on after a kill.

    Args:
        named: Keys of embedding versions; those of other models are the live release's.
        num_seeds: Seeds that figures are the mean of; the first one's models are released.
        request: Keeps a note of what is made until whoever asked has been told; none where nobody waits for that.

    Raises:
        RunLockedError: Another process works in the run.
        ValueError: No release can be trained on the versions; as `trainable_versions`.
        WrongStateError: A release of the same parts was given up.
    """
    set_up_torch(home.context.config.threads)
    with run_lock(home.run):
        plan = planned(home, named, num_seeds)
        manifest = _made(home, plan, request)
        if manifest is None:
            retraining = _Retraining(home, plan, progress)
            retraining.train()
            manifest = retraining.write()
            record_release(home.catalogue, home.run, manifest, made_by=who, who=who, why=why)
            if request is not None:
                request.note(release=manifest.release, data_cutoff=plan.chosen.index_cutoff.isoformat())
        shutil.rmtree(plan.kept.folder, ignore_errors=True)
    return manifest


def _made(home: Home, plan: Plan, request: Request | None) -> ReleaseManifest | None:
    """The release that the same command recorded, and was killed before it could tell; none where days came since."""
    noted = request.noted() if request is not None else {}
    if noted.get("data_cutoff") != plan.chosen.index_cutoff.isoformat():
        return None
    there = {each.id: each for each in home.catalogue.releases([ReleaseState.CANDIDATE, ReleaseState.LIVE])}
    record = there.get(noted["release"])
    return None if record is None else verified_release(home.run, record)


class _Retraining:
    """The models of one release: what they are trained on, and how they come back from their files."""

    def __init__(self, home: Home, plan: Plan, progress: Progress) -> None:
        self._home, self._plan, self._progress = home, plan, progress
        config = replace(home.context.config, num_seeds=len(plan.seeds))
        self._versions = plan.chosen.versions
        self._evaluation = Evaluation(replace(home.context, config=config), progress, self._versions)
        self._rankers = self._evaluation.ranker_jobs()
        self._arms = {name: self._evaluation.ranker_arms(ctr=name == "pctr")[-1] for name in self._rankers}
        self._retrieval = self._retrieval_job()

    def train(self) -> None:
        """Train the models that are not kept yet, one a core."""
        items = {_ranker_name(name, seed): (name, seed) for name in self._rankers for seed in self._plan.seeds}

        def train(model: str, progress: Progress) -> None:
            if model == self._plan.retrieval:
                self._keep_retrieval(two_tower(self._retrieval, "two-tower", self._versions, progress))
            else:
                name, seed = items[model]
                self._keep_ranker(model, run_seed(self._rankers[name], self._arms[name], seed, progress))

        if missing := self._plan.missing:
            workers = self._home.context.config.threads
            map_forked(train, missing, name="models of the release", workers=workers, progress=self._progress)

    def write(self) -> ReleaseManifest:
        """Judge the models, export them, and write the release with an index over the newest day's Pins."""
        rankers = {name: (job, self._ranker(name, job)) for name, job in self._rankers.items()}
        retrieval = self._trained_retrieval()
        chosen = self._plan.chosen
        with self._progress.stage("figures"):
            figures = _figures(rankers, retrieval)
        with self._progress.stage("export the release"):
            parts = ReleaseParts(
                rankers=rankers,
                retrieval=retrieval,
                retrieval_job=self._retrieval,
                log=self._evaluation.log,
                candidates=lambda encoder: self._evaluation.retrieval_reader(InputSpec(side="user"), encoder),
                versions=self._versions,
                spaces=chosen.spaces,
                services=chosen.services,
                commit=commit() or "unknown",
                seed=self._plan.seeds[0],
                cutoff=chosen.index_cutoff,
                figures=figures,
            )
            folder, workers = self._home.context.path(RELEASES), self._home.context.config.threads
            return write_release(parts, folder, workers=workers, progress=self._progress, check=self._check)[0]

    def _check(self, release: str) -> None:
        """What may have changed in the catalogue since training began."""
        refuse_given_up(self._home.catalogue, release)
        trainable_versions(self._home, list(self._plan.chosen.spaces))

    def _retrieval_job(self) -> RetrievalJob:
        with self._progress.stage("users and Pins of validation and test"):
            return self._evaluation.retrieval_job()

    def _keep_ranker(self, model: str, result: SeedResult) -> None:
        arrays = {_WEIGHTS + name: value for name, value in result.weights.items()}
        logits = {"validation_logits": result.validation_logits, "test_logits": result.test_logits}
        self._plan.kept.save(model, {**arrays, **logits}, {"epoch": result.epoch})

    def _ranker(self, name: str, job: RankerJob) -> ArmResult:
        results = []
        for seed in self._plan.seeds:
            arrays, notes = self._plan.kept.load(_ranker_name(name, seed))
            logits = {part: arrays[part] for part in ("validation_logits", "test_logits")}
            results.append(SeedResult(weights=_weights(arrays), epoch=notes["epoch"], **logits))
        return collected(job, self._arms[name], results)

    def _keep_retrieval(self, arm: RetrievalArm) -> None:
        arrays = {_WEIGHTS + name: value.numpy() for name, value in arm.model.state_dict().items()}
        found = {"recall": arm.figures.recall, "ndcg": arm.figures.ndcg}
        prior = {"days": arm.prior.days, "weight": arm.prior.weight}
        notes = {"epochs": arm.epochs, "prior": prior, "model": arm.figures.model, "curve": arm.figures.curve}
        self._plan.kept.save(self._plan.retrieval, {**arrays, **found}, notes)

    def _trained_retrieval(self) -> RetrievalArm:
        arrays, notes = self._plan.kept.load(self._plan.retrieval)
        curve = tuple((k, recall) for k, recall in notes["curve"])
        return restored_two_tower(
            self._retrieval,
            self._versions,
            {name: torch.from_numpy(value) for name, value in _weights(arrays).items()},
            prior=Prior(**notes["prior"]),
            epochs=notes["epochs"],
            figures=Figures(model=notes["model"], recall=arrays["recall"], ndcg=arrays["ndcg"], curve=curve),
        )


def _ranker_name(name: str, seed: int) -> str:
    return f"{name}_seed{seed}"


def _retrieval_name(seeds: Sequence[int]) -> str:
    return f"retrieval_seed{seeds[0]}" + (f"_to_{seeds[-1]}" if len(seeds) > 1 else "")


def _weights(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(_WEIGHTS): value for name, value in arrays.items() if name.startswith(_WEIGHTS)}


def _figures(rankers: Mapping[str, tuple[RankerJob, ArmResult]], retrieval: RetrievalArm) -> dict[str, float]:
    """Figures on the test days, under the names that the run's own releases have them by."""
    found: dict[str, float] = {}
    for name, (job, result) in rankers.items():
        (row,) = lift_rows(job, [result], name, name, samples=0)
        found |= released_figures(name, row)
    return found | {"retrieval_recall_at_20": float(retrieval.figures.recall.mean())}


def _fingerprint(home: Home, chosen: TrainableVersions) -> str:
    """Everything but the seed that the models follow from: events, versions day by day, recipe and code."""
    days = {
        key: [[day.cutoff.isoformat(), dict(day.snapshot_sha256)] for day in days] for key, days in chosen.days.items()
    }
    made_from = {
        "log": _log_files(home.context.path(EVENT_LOG)),
        "spec": home.log.spec.model_dump_json(),
        "days": days,
        "spaces": chosen.spaces,
        "recipe": home.recipe.fingerprint_text(*_RECIPE_PARTS),
        "commit": commit(),
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _log_files(log: Path) -> list[tuple[str, int]]:
    """Files of the event log by name and size: a refresh adds some, and changes none."""
    files = sorted(file for file in log.rglob("*.parquet") if "quarantine" not in file.parts)
    return [(str(file.relative_to(log)), file.stat().st_size) for file in files]
