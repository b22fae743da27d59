"""What each part of the upstream model and of a consumer's input is worth: left out, or made narrower or wider.

Upstream models are of the small sizes that `aggregation` trains, for one is trained from scratch in each case; what is
compared is the consumer of their vectors with that of the model as it is. Projections are of the run's own vectors.
Dims: N test rows, S rankers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainers.evaluation.arms import Arm
from trainers.experiments.product_recall import ProductRecall
from trainers.experiments.rankers import Judge, RankerRequest, Rankers
from trainers.experiments.setting import Setting
from trainers.experiments.variants import Variants, averaged
from trainers.experiments.walks import WalkRequest, Walks
from trainers.metrics import bootstrap_mean, paired_bootstrap_means
from trainers.upstream_rows import domain_tasks

WHOLE = "whole"
AS_IT_IS = "as it is"
NONE = "none"
FIRST_SEED = 3000
"""Added to the run's seed for the models of the cases."""
LAYERS = (
    (("masknet",),),
    (("mlp",),),
    (("transformer", "mlp"),),
    (("masknet", "transformer"),),
    (("dcn", "mlp"),),
    (("masknet", "mlp"), ("transformer", "mlp")),
)
OUTPUT_TOKENS = (1, 4)
PROJECTIONS = (0, 32, 64, 128)
"""Widths of one projection of all embeddings, 0 for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One upstream model."""

    part: str
    """What is changed."""
    case: str
    """How."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe."""
    tasks: tuple[str, ...] = ()
    """Tasks that it learns; all when there are none."""
    history_share: float | None = None
    """Share of the long histories that it begins with; the recipe's when none is given."""

    @property
    def key(self) -> str:
        """Name of its files."""
        return re.sub(r"[^a-z0-9.]+", "_", f"ablation {self.part} {self.case}".lower())


def run(setting: Setting) -> list[dict[str, Any]]:
    """A row for each case: lift over no embeddings, and change against the model as it is."""
    return _Ablation(setting, setting.work("ablation")).rows()


class _Ablation:
    """The experiment under way."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting, self._walks, self._rankers = setting, Walks(setting), Rankers(setting)
        version = setting.version
        self._variants = Variants(folder / "repo", version.model, version.ttl_hours, setting.publish_delay)
        self._judge = Judge(setting.job, setting.evaluation.recipe.bootstrap_samples)

    def rows(self) -> list[dict[str, Any]]:
        """The table: upstream first, then what a consumer makes of the vectors."""
        cases = list(self.cases())
        walks = {each.key: self._walk(each) for each in cases}
        self._walks.run(list(walks.values()))
        weight = self._setting.recipe.small.average_weight
        for key, request in walks.items():
            self._variants.add(key, averaged(self._walks.days(request), weight))
        store = self._variants.store()
        none = RankerRequest(name=NONE, job=self._setting.job, arm=Arm(inputs="none"))
        self._rankers.train([none, *(self._request(store, each) for each in cases), *self._projected().values()])
        return [*self._upstream_rows(cases), *self._projection_rows(), *self._recall_rows(store, cases)]

    def cases(self) -> Iterator[Case]:
        """The model as it is, then every part of it changed."""
        setting = self._setting
        yield Case(part=WHOLE, case=AS_IT_IS)
        yield Case(part="contrastive loss", case="left out", changes={"contrastive_weight": 0.0})
        tasks = domain_tasks(setting.evaluation.log, setting.version.model)
        if len(tasks) > 1:
            yield from (Case(part="tasks", case=f"{task} alone", tasks=(task,)) for task in tasks)
        if setting.evaluation.manifest.histories:
            yield Case(part="long histories", case="left out", history_share=0.0)
        for layers in LAYERS[: setting.recipe.ablated_layers]:
            changes = {"tower_layers": layers, "interaction_layers": layers}
            yield Case(part="DHEN layers", case=", then ".join(" + ".join(layer) for layer in layers), changes=changes)
        for tokens in OUTPUT_TOKENS:
            width = tokens * setting.recipe.small.token_dim
            yield Case(part="embedding width", case=str(width), changes={"output_tokens": tokens})

    def _walk(self, case: Case) -> WalkRequest:
        setting, cutoffs = self._setting, self._setting.cutoffs()
        share = setting.recipe.history_share if case.history_share is None else case.history_share
        return WalkRequest(
            name=case.key,
            recipe=replace(setting.recipe.small, **case.changes),
            seed=setting.context.config.seed + FIRST_SEED,
            until=cutoffs[-1],
            embed_from=cutoffs[0],
            history_share=share,
            tasks=case.tasks,
        )

    def _request(self, store: Any, case: Case) -> RankerRequest:
        inputs = self._setting.inputs(store, self._variants[case.key])
        return RankerRequest(name=case.key, job=self._setting.job_with(inputs), arm=self._setting.arm)

    def _projected(self) -> dict[str, RankerRequest]:
        """Rankers that read the run's own vectors, by how they are joined."""
        setting, arm = self._setting, self._setting.released_arm
        found = {"a token each": RankerRequest(name="vectors", job=setting.job, arm=arm)}
        for width in PROJECTIONS:
            job = replace(setting.job, projection_dim=width)
            name = f"{width} wide, together" if width else "not projected"
            found[name] = RankerRequest(name=f"vectors_projected_{width}", job=job, arm=arm)
        return found

    def _upstream_rows(self, cases: list[Case]) -> list[dict[str, Any]]:
        seeds = self._setting.job.seeds
        none, whole = (self._rankers.scores(name, seeds) for name in (NONE, cases[0].key))
        found = [self._judge.row({"part": "vectors", "case": "none"}, none, {})]
        for each in cases:
            against = {"lift": none} | ({"change_to_whole": whole} if each.part != WHOLE else {})
            scores = self._rankers.scores(each.key, seeds)
            found.append(self._judge.row({"part": each.part, "case": each.case}, scores, against))
        return found

    def _recall_rows(self, store: Any, cases: list[Case]) -> Iterator[dict[str, Any]]:
        """Retrieval by the inner product of each model's vectors."""
        retrieval = ProductRecall(self._setting)
        samples, seed = retrieval.job.samples, retrieval.job.seeds[0]
        recalls = {each.key: retrieval.recall(store, self._variants[each.key]) for each in cases}
        for each in cases:
            recall, whole = recalls[each.key], recalls[cases[0].key]
            mean, low, high = bootstrap_mean(recall, samples, seed)
            row = {"part": each.part, "case": each.case, "n_users": len(recall), "recall_at_20": mean}
            row |= {"recall_ci95": (low, high)}
            if each.part != WHOLE:
                change = paired_bootstrap_means(whole, recall, samples, seed)
                row |= {"change_to_whole_pct": change.lift, "change_to_whole_ci95": (change.low, change.high)}
            yield row

    def _projection_rows(self) -> list[dict[str, Any]]:
        seeds, requests = self._setting.job.seeds, self._projected()
        none, first = (self._rankers.scores(name, seeds) for name in (NONE, "vectors"))
        found = []
        for name, request in requests.items():
            against = {"lift": none} | ({"change_to_whole": first} if request.name != "vectors" else {})
            row = self._judge.row(
                {"part": "projection of the vectors", "case": name}, self._rankers.scores(request.name, seeds), against
            )
            found.append(row | {"cpu_seconds": self._rankers.cpu_seconds(request.name, seeds)})
        return found
