"""What embeddings are worth to different consumers: one that lacks the long history, one that has all that upstream
has, teams with one surface alone; with more than today's vectors, and with vectors missing when it serves.

Dims: N test rows, S rankers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import ENTITIES, EmbeddingVersion, write_atomically
from feature_repo.encoding import Array
from trainers.data.ranking_data import vector_input
from trainers.data.version_vectors import version_vectors
from trainers.evaluation.arms import Arm, RankerJob, Scored
from trainers.evaluation.boosted_arms import RANKER as BOOSTED
from trainers.evaluation.boosted_arms import boosted_results
from trainers.evaluation.search import rankers_in_arms
from trainers.experiments.consumer_inputs import with_histories, with_past, with_version
from trainers.experiments.rankers import Judge, RankerRequest, Rankers, Scores
from trainers.experiments.setting import Setting
from trainers.experiments.single_surface import folder_name, small_surfaces, surface_evaluation
from trainers.experiments.variants import Variants
from trainers.experiments.walks import WalkRequest, Walks
from trainers.ranking import recipes as ranking

NEURAL = {"dcn": "DCNv2 + MMoE", "dhen": "DHEN + MMoE"}
LOGISTIC, READS = "logistic regression", "reads besides"
LESS, SAME = "without the long history", "with the long history"
NONE, VECTORS = "nothing", "vectors"
PAST, CROSS = "vectors, and those of the days before as a sequence", "vectors and cross representations"
ALL_MISSING, SOME_MISSING = "vectors, all missing when it serves", "vectors, a tenth missing when it serves"
MISSING_SHARE = 0.1


def run(setting: Setting) -> list[dict[str, Any]]:
    """A row for each consumer and what it reads: lift over its own base, and change against vectors alone."""
    return _Consumers(setting, setting.work("consumers")).rows()


class _Consumers:
    """The experiment under way."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting, self._folder = setting, folder
        self._rankers = Rankers(setting)

    def rows(self) -> list[dict[str, Any]]:
        """The table."""
        requests = self._requests()
        self._rankers.train(list(requests.values()))
        found = self._neural(LESS, requests) + self._missing(requests[LESS, VECTORS])
        found += self._neural(SAME, requests) if self._has_histories else []
        found += self._others()
        surfaces = small_surfaces(self._setting.job, self._setting.recipe.min_surface_rows)
        return found + [row for surface in surfaces for row in self._surface(surface)]

    def _requests(self) -> dict[tuple[str, str], RankerRequest]:
        """Neural rankers by consumer and what they read."""
        job, (none, full) = self._setting.job, self._arms
        found = {
            (LESS, NONE): RankerRequest(name="none", job=job, arm=none),
            (LESS, VECTORS): RankerRequest(name="vectors", job=job, arm=full),
            (LESS, PAST): RankerRequest(name="vectors_past", job=self._past_job, arm=full),
            (LESS, CROSS): RankerRequest(name="vectors_cross", job=self._cross_job, arm=self._cross_arm),
        }
        if self._has_histories:
            found[SAME, NONE] = RankerRequest(name="histories_none", job=self._history_job, arm=none)
            found[SAME, VECTORS] = RankerRequest(name="histories_vectors", job=self._history_job, arm=full)
        return found

    def _neural(self, consumer: str, requests: dict[tuple[str, str], RankerRequest]) -> list[dict[str, Any]]:
        own = {reads: each for (name, reads), each in requests.items() if name == consumer}
        return self._judged(self._setting.job, consumer, NEURAL[self._setting.job.recipe.backbone], own)

    def _missing(self, request: RankerRequest) -> list[dict[str, Any]]:
        """The ranker that reads vectors, scored where the store lacks them."""
        job, ranker = request.job, NEURAL[request.job.recipe.backbone]
        judge = Judge(job, self._setting.evaluation.recipe.bootstrap_samples)
        scores = {
            reads: self._rankers.scores(name, job.seeds) for reads, name in ((NONE, "none"), (VECTORS, "vectors"))
        }
        return [
            _row(
                judge,
                _case(job.task, LESS, ranker, reads),
                self._rankers.rescored(request, self._hidden(share)),
                scores,
            )
            for reads, share in ((ALL_MISSING, 1.0), (SOME_MISSING, MISSING_SHARE))
        ]

    def _hidden(self, share: float) -> dict[str, Array]:
        """Inputs of the test rows, each entity's vectors hidden in a share of them."""
        data, test = self._setting.job.data, self._setting.job.split.test
        random, found = np.random.default_rng(self._setting.context.config.seed), {}
        for side in (data.user, data.pin):
            kept = (random.random((len(test), 1)) >= share).astype(np.float32)
            for version in self._versions:
                name = vector_input(side, version)
                found[name] = data.examples.inputs[name][test] * kept
        return found

    def _others(self) -> list[dict[str, Any]]:
        """LightGBM in the place of the neural ranker, and a logistic regression on its columns, on every task."""
        found = []
        for consumer, job in self._other_jobs():
            for ranker, logistic in ((BOOSTED, None), (LOGISTIC, ranking.LogisticRecipe())):
                # Nothing is random in a regression.
                seeds = job.seeds if logistic is None else job.seeds[:1]
                name = f"{ranker} {job.task} {consumer}".lower().replace(" ", "_")
                own = {
                    reads: RankerRequest(
                        name=f"{name}_{arm.inputs}",
                        job=replace(job, seeds=seeds),
                        arm=arm,
                        boosted=self._boosted_recipe,
                        logistic=logistic,
                    )
                    for reads, arm in zip((NONE, VECTORS), self._arms, strict=True)
                }
                found += self._judged(own[NONE].job, consumer, ranker, own)
        return found

    def _other_jobs(self) -> Iterator[tuple[str, RankerJob]]:
        for job in self._setting.evaluation.ranker_jobs().values():
            yield LESS, job
        if self._has_histories:
            yield SAME, self._history_job

    def _judged(
        self, job: RankerJob, consumer: str, ranker: str, requests: dict[str, RankerRequest]
    ) -> list[dict[str, Any]]:
        """Rows of rankers of one kind by what they read."""
        self._rankers.train(list(requests.values()))
        judge = Judge(job, self._setting.evaluation.recipe.bootstrap_samples)
        scores = {reads: self._rankers.scores(each.name, job.seeds) for reads, each in requests.items()}
        return [_row(judge, _case(job.task, consumer, ranker, reads), each, scores) for reads, each in scores.items()]

    def _surface(self, surface: str) -> list[dict[str, Any]]:
        """Rows of a team with one surface alone; its settings are chosen on its own validation days."""
        folder = self._folder / "surfaces" / folder_name(surface)
        kept = folder.with_suffix(".json")
        if not kept.is_file():
            evaluation = surface_evaluation(self._setting, surface, folder)
            job = evaluation.ranker_job(evaluation.spec.ctr_task, ctr=True)
            write_atomically(kept, json.dumps(list(self._surface_rows(surface, job))) + "\n")
        return [
            {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in json.loads(kept.read_text())
        ]

    def _surface_rows(self, surface: str, job: RankerJob) -> Iterator[dict[str, Any]]:
        setting, judge = self._setting, Judge(job, self._setting.evaluation.recipe.bootstrap_samples)
        options: dict[str, Any] = {"workers": setting.workers, "progress": setting.progress}
        name, arms = setting.evaluation.spec.ctr_task, list(self._arms)
        tried = {name: ranking.tried(job.recipe)}
        neural: list[Scored] = list(rankers_in_arms({name: job}, {name: arms}, tried, **options)[name])
        boosted = boosted_results({name: job}, {name: arms}, self._boosted_recipe, **options)[name]
        for ranker, results in ((NEURAL[job.recipe.backbone], neural), (BOOSTED, boosted)):
            scores = {reads: each.test_logits for reads, each in zip((NONE, VECTORS), results, strict=True)}
            for reads, each in scores.items():
                yield _row(judge, _case(job.task, f"surface {surface} alone", ranker, reads), each, scores)

    @property
    def _versions(self) -> tuple[EmbeddingVersion, ...]:
        return self._setting.evaluation.versions

    @property
    def _arms(self) -> tuple[Arm, Arm]:
        """Nothing, and what a release reads."""
        return Arm(inputs="none"), self._setting.released_arm

    @property
    def _boosted_recipe(self) -> ranking.BoostedRecipe:
        return self._setting.evaluation.recipe.boosted or ranking.boosted()

    @property
    def _has_histories(self) -> bool:
        return bool(self._setting.evaluation.manifest.histories)

    @cached_property
    def _history_job(self) -> RankerJob:
        evaluation = self._setting.evaluation
        return with_histories(self._setting.job, evaluation.store, evaluation.manifest)

    @cached_property
    def _past_job(self) -> RankerJob:
        setting = self._setting
        return with_past(setting.job, setting.evaluation.store, setting.version, setting.recipe.past_days)

    @cached_property
    def _cross_job(self) -> RankerJob:
        data, version = self._setting.job.data, self._cross_version
        vectors = {
            entity: version_vectors(self._cross.store(), version, entity, keys, data.event_micros)
            for entity, keys in zip(ENTITIES, (data.user_ids, data.pin_ids), strict=True)
        }
        return with_version(self._setting.job, version, vectors)

    @property
    def _cross_arm(self) -> Arm:
        return replace(self._arms[1], versions=(*self._versions, self._cross_version))

    @property
    def _cross_version(self) -> EmbeddingVersion:
        return self._cross["cross"]

    @cached_property
    def _cross(self) -> Variants:
        """Cross representations of the run's own model, trained once more with what each day leaves of them."""
        setting, walks, version = self._setting, Walks(self._setting), self._setting.version
        cutoffs = setting.cutoffs()
        request = WalkRequest(
            name="cross",
            recipe=setting.evaluation.recipe.upstream,
            seed=setting.context.config.seed,
            until=cutoffs[-1],
            embed_from=cutoffs[0],
            cross_days=setting.recipe.cross_days,
        )
        walks.run([request])
        variants = Variants(self._folder / "repo", "cross", version.ttl_hours, setting.publish_delay)
        variants.add("cross", walks.days(request))
        return variants


def _case(task: str, consumer: str, ranker: str, reads: str) -> dict[str, str]:
    return {"task": task, "consumer": consumer, "ranker": ranker, READS: reads}


def _row(judge: Judge, case: dict[str, str], scores: Scores, own: dict[str, Scores]) -> dict[str, Any]:
    """A row, compared with the consumer's base, and where it reads more than vectors, with these alone.

    Args:
        own: Scores of the same consumer by what it reads.
    """
    reads = case[READS]
    against = {"lift": own[NONE]} if reads != NONE else {}
    against |= {"change_to_vectors": own[VECTORS]} if reads not in (NONE, VECTORS) else {}
    return judge.row(case, scores, against) | (judge.gauc_lift(scores, own[NONE]) if against else {})
