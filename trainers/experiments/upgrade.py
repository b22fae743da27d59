"""What an upgrade does to a consumer that stays: a ranker of version v reads v's successor from the test days on.

Dims: N test rows, S rankers, R retrainings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import ENTITIES
from trainers.evaluation.arms import Arm
from trainers.experiments.rankers import Judge, RankerRequest, Rankers, Scores
from trainers.experiments.setting import Setting
from trainers.experiments.variants import Days, Variants, averaged, published
from trainers.experiments.walks import WalkRequest, Walks
from trainers.upstream.aggregate import Vectors, normalised
from trainers.upstream.alignment import Kind, align
from trainers.upstream.compatibility import BackwardMap
from trainers.upstream.frame import Frame

RETRAINED, COMPATIBLE = "retrained", "compatible"
CASES = {
    "unaligned": "retrained from scratch, unaligned",
    "procrustes": "retrained, Procrustes",
    "svd_procrustes": "retrained, SVD + Procrustes",
    "fitted_map": "retrained, linear map fitted afterwards",
    "compatible": "backward-compatible version through its map",
}
MOVED = {
    RETRAINED: "consumer trained anew on the retrained version",
    COMPATIBLE: "consumer trained anew on the backward-compatible version",
}
REFRESHED, WITHOUT = "version v, still refreshed", "no embeddings"
FIRST_SEED = 1000
"""Added to the run's seed for retrainings: far from every seed that the run itself uses."""

Change = Callable[[str, Vectors], Vectors]
"""Vectors of an entity to what a consumer of v reads in their place."""


def run(setting: Setting) -> list[dict[str, Any]]:
    """A row for each way to go on, judged on the test days against v that is still refreshed and against no vectors."""
    return _Upgrade(setting, setting.work("upgrade")).rows()


@dataclass(frozen=True, slots=True)
class _Retraining:
    """Two successors of v: one that knows nothing of it, and one that was trained to be read as v."""

    number: int
    retrained: WalkRequest
    compatible: WalkRequest

    def requests(self) -> dict[str, WalkRequest]:
        """Both, by name."""
        return {RETRAINED: self.retrained, COMPATIBLE: self.compatible}


class _Upgrade:
    """The experiment under way."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting = setting
        self._walks, self._rankers = Walks(setting), Rankers(setting)
        version = setting.version
        self._variants = Variants(folder / "repo", version.model, version.ttl_hours, setting.publish_delay)
        self._retrainings = [self._retraining(number) for number in range(setting.num_retrains)]
        self._stay = RankerRequest(name="v", job=setting.job, arm=setting.arm)
        self._without = RankerRequest(name="none", job=setting.job, arm=Arm(inputs="none"))

    def rows(self) -> list[dict[str, Any]]:
        """The table."""
        self._walks.run([request for each in self._retrainings for request in each.requests().values()])
        cosines = {name: [self._add(name, each) for each in self._retrainings] for name in CASES}
        for each in self._retrainings:
            for name, request in each.requests().items():
                self._variants.add(f"moved_{name}_{each.number}", self._days(request))
        store = self._variants.store()
        moved = {name: [self._moved(store, name, each.number) for each in self._retrainings] for name in MOVED}
        self._rankers.train([self._stay, self._without, *(each for group in moved.values() for each in group)])
        scores = {CASES[name]: self._staying(store, name) for name in CASES}
        scores |= {MOVED[name]: np.concatenate([self._trained(each) for each in moved[name]]) for name in MOVED}
        return self._table(scores, {CASES[name]: float(np.mean(values)) for name, values in cosines.items()})

    def _table(self, scores: Mapping[str, Scores], cosines: Mapping[str, float]) -> list[dict[str, Any]]:
        judge = Judge(self._setting.job, self._setting.evaluation.recipe.bootstrap_samples)
        repeats = len(self._retrainings)
        stay, without = (np.tile(self._trained(each), (repeats, 1)) for each in (self._stay, self._without))
        found = [judge.row({"case": REFRESHED}, stay, {"change_to_none": without})]
        for case, each in scores.items():
            named: dict[str, Any] = {"case": case}
            named |= {"cosine_to_v": cosines[case]} if case in cosines else {}
            found.append(judge.row(named, each, {"change_to_v": stay, "change_to_none": without}))
        return [*found, judge.row({"case": WITHOUT}, without, {"change_to_v": stay})]

    def _retraining(self, number: int) -> _Retraining:
        setting = self._setting
        common: dict[str, Any] = {
            "recipe": setting.evaluation.recipe.upstream,
            "seed": setting.context.config.seed + FIRST_SEED + number,
            "until": setting.evaluation.spec.window.until,
            "embed_from": setting.cutoffs()[0],
        }
        weight = setting.recipe.compatibility_weight
        return _Retraining(
            number,
            WalkRequest(name=f"{RETRAINED}_{number}", **common),
            WalkRequest(
                name=f"{COMPATIBLE}_{number}",
                compatible_with=setting.version,
                compatibility_weight=weight,
                **common,
            ),
        )

    def _days(self, request: WalkRequest, since: datetime | None = None) -> Iterator[tuple[datetime, Frame]]:
        """What a version of that model would publish."""
        for cutoff, frame in averaged(
            self._walks.days(request), self._setting.evaluation.recipe.upstream.average_weight
        ):
            if since is None or cutoff >= since:
                yield cutoff, frame

    def _add(self, name: str, retraining: _Retraining) -> float:
        """Write what a consumer of v reads from the switch on; returns its mean cosine to v on the last day."""
        setting = self._setting
        request = retraining.compatible if name == "compatible" else retraining.retrained
        # A row of the first minutes still gets the snapshot of the day before.
        days = list(self._days(request, setting.switch - timedelta(days=1)))
        change = self._change(name, request, dict(days)[setting.switch])
        changed = [(cutoff, _changed(frame, change)) for cutoff, frame in days]
        self._variants.add(f"{name}_{retraining.number}", changed)
        return self._cosine(changed)

    def _change(self, name: str, request: WalkRequest, frame: Frame) -> Change:
        """How the case brings a day of the newer model into v's space; maps are fitted on the day of the switch."""
        if name == "unaligned":
            return lambda _, vectors: vectors
        if name == "compatible":
            trained = BackwardMap.load(self._walks.backward_map(request))
            return lambda _, vectors: trained.compatible(vectors)
        reference = self._published(self._setting.switch)
        if name == "fitted_map":
            fitted = _fitted(frame, reference)
            return lambda _, vectors: fitted.compatible(vectors)
        kind: Kind = "procrustes" if name == "procrustes" else "svd_procrustes"
        found = align(frame, reference, kind)[1]
        return lambda entity, vectors: normalised(found.apply(entity, vectors))

    def _cosine(self, days: Days) -> float:
        cutoff, frame = list(days)[-1]
        figures = align(frame, self._published(cutoff), "procrustes")[2]
        return float(np.mean([each.cosine_before for each in figures.entities.values()]))

    def _published(self, cutoff: datetime) -> Frame:
        ((_, frame),) = published(self._setting.offline, self._setting.version, [cutoff])
        return frame

    def _moved(self, store: Any, name: str, number: int) -> RankerRequest:
        """A ranker that is trained anew on the successor's own days."""
        inputs = self._setting.inputs(store, self._variants[f"moved_{name}_{number}"])
        return RankerRequest(name=f"on_{name}_{number}", job=self._setting.job_with(inputs), arm=self._setting.arm)

    def _staying(self, store: Any, name: str) -> Scores:
        """Logits [R * S, N] of v's rankers on what the case gives them to read."""
        test = self._setting.job.split.test
        versions = [self._variants[f"{name}_{each.number}"] for each in self._retrainings]
        read = (self._setting.inputs(store, version, test) for version in versions)
        return np.concatenate([self._rankers.rescored(self._stay, inputs) for inputs in read])

    def _trained(self, request: RankerRequest) -> Scores:
        return self._rankers.scores(request.name, request.job.seeds)


def _changed(frame: Frame, change: Change) -> Frame:
    return {entity: (keys, change(entity, vectors)) for entity, (keys, vectors) in frame.items()}


def _fitted(frame: Frame, reference: Frame) -> BackwardMap:
    """One linear map for users and Pins with the least squared error over those that both frames hold."""
    pairs = []
    for entity in ENTITIES:
        (keys, vectors), (known, onto) = frame[entity], reference[entity]
        _, ours, theirs = np.intersect1d(keys, known, assume_unique=True, return_indices=True)
        pairs.append((vectors[ours], onto[theirs]))
    return BackwardMap.fitted(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
