"""How an entity's days become one vector: the latest, a plain mean or a moving average, under two ways of training.

Warm start goes on from yesterday's weights, so that its days share one space. Daily retraining starts from scratch each
day, so that its days must be aligned before they can be averaged.
Dims: N test rows, S rankers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from trainers.evaluation.arms import Arm
from trainers.experiments.rankers import Judge, RankerRequest, Rankers
from trainers.experiments.setting import Setting
from trainers.experiments.variants import Days, Variants, averaged, plain_average
from trainers.experiments.walks import WalkRequest, Walks
from trainers.upstream.alignment import align
from trainers.upstream.frame import Frame

LATEST, MEAN = "latest", "mean of all days"
WARM, ALIGNED, UNALIGNED = "warm start", "daily retrain, aligned", "daily retrain, unaligned"
TRAININGS = (WARM, ALIGNED, UNALIGNED)
WITHOUT = "none"
FIRST_SEED = 2000
"""Added to the run's seed for retrainings."""


class Case(NamedTuple):
    """One row of the table."""

    training: str
    aggregation: str

    @property
    def key(self) -> str:
        """Name of its files."""
        return re.sub(r"[^a-z0-9.]+", "_", f"{self.training} {self.aggregation}")


def moving(weight: float) -> str:
    """Name of a moving average."""
    return f"moving average, w = {weight:g}"


def run(setting: Setting) -> list[dict[str, Any]]:
    """A row for each training and aggregation: lift over no embeddings, and change against the latest vectors."""
    return _Aggregation(setting, setting.work("aggregation")).rows()


class _Aggregation:
    """The experiment under way."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting = setting
        self._walks, self._rankers = Walks(setting), Rankers(setting)
        version = setting.version
        self._variants = Variants(folder / "repo", version.model, version.ttl_hours, setting.publish_delay)

    def rows(self) -> list[dict[str, Any]]:
        """The table, each training with the latest vectors first."""
        self._walks.run([self._warm, *self._retrains])
        cases = [Case(training, name) for training in TRAININGS for name in self._names(training)]
        for case in cases:
            self._variants.add(case.key, self._aggregated(case.aggregation, self._days(case.training)))
        store, setting = self._variants.store(), self._setting
        self._rankers.train(
            [
                RankerRequest(name=WITHOUT, job=setting.job, arm=Arm(inputs="none")),
                *(self._request(store, case) for case in cases),
            ]
        )
        return self._table(cases)

    def _table(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        setting, seeds = self._setting, self._setting.job.seeds
        judge = Judge(setting.job, setting.evaluation.recipe.bootstrap_samples)
        none = self._rankers.scores(WITHOUT, seeds)
        found = []
        for case in cases:
            latest = Case(case.training, LATEST).key
            against = {"change_to_latest": self._rankers.scores(latest, seeds)} if case.key != latest else {}
            scores = self._rankers.scores(case.key, seeds)
            found.append(judge.row(case._asdict(), scores, {"lift": none, **against}))
        return [*found, judge.row(Case("none", "no embeddings")._asdict(), none, {})]

    def _request(self, store: Any, case: Case) -> RankerRequest:
        inputs = self._setting.inputs(store, self._variants[case.key])
        return RankerRequest(name=case.key, job=self._setting.job_with(inputs), arm=self._setting.arm)

    def _names(self, training: str) -> list[str]:
        """Aggregations of a training; averages over spaces that are not aligned are shown once, for what they are."""
        weights = self._setting.recipe.weights
        if training == UNALIGNED:
            return [LATEST, moving(weights[-1])]
        return [LATEST, MEAN, *map(moving, weights)]

    def _aggregated(self, name: str, days: Days) -> Days:
        if name == MEAN:
            return plain_average(days)
        weights = {moving(weight): weight for weight in self._setting.recipe.weights}
        return averaged(days, weights.get(name, 0.0))

    def _days(self, training: str) -> Days:
        """Vectors of each day, not aggregated."""
        if training == WARM:
            return self._walks.days(self._warm)
        return self._aligned() if training == ALIGNED else self._unaligned()

    def _unaligned(self) -> Iterator[tuple[datetime, Frame]]:
        for request in self._retrains:
            yield from self._walks.days(request)

    def _aligned(self) -> Iterator[tuple[datetime, Frame]]:
        """Every day in the frame of the first; nothing of a later day enters an earlier one."""
        ((first, reference),) = islice(self._unaligned(), 1)
        for cutoff, frame in self._unaligned():
            yield cutoff, frame if cutoff == first else align(frame, reference, "procrustes")[0]

    @cached_property
    def _warm(self) -> WalkRequest:
        cutoffs = self._setting.cutoffs()
        return self._request_walk("warm", 0, cutoffs[0], cutoffs[-1])

    @cached_property
    def _retrains(self) -> list[WalkRequest]:
        """A model for each cut-off, trained on everything before it from a start of its own."""
        cutoffs = self._setting.cutoffs()
        return [self._request_walk(f"retrain_{c:%Y-%m-%d}", i, c, c) for i, c in enumerate(cutoffs, 1)]

    def _request_walk(self, name: str, number: int, embed_from: datetime, until: datetime) -> WalkRequest:
        return WalkRequest(
            name=name,
            recipe=self._setting.recipe.small,
            seed=self._setting.context.config.seed + FIRST_SEED + number,
            until=until,
            embed_from=embed_from,
            history_share=self._setting.recipe.history_share,
        )
