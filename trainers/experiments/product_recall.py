"""Retrieval by the inner product of two vectors alone: what embeddings are worth with nothing trained on top.

Dims: U users, P Pins, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from feature_repo.contract import ENTITIES, EmbeddingVersion
from feature_repo.encoding import Array
from trainers.data.examples import Examples
from trainers.data.ranking_data import vector_input
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.data.version_vectors import version_vectors
from trainers.evaluation.retrieval import RetrievalJob, validation_start
from trainers.evaluation.retrieval_figures import Prior, Represent, Vectors, best_prior, by_inner_product, judged
from trainers.experiments.setting import Setting

ReadVectors = Callable[[str, Array], Array]
"""Vectors [K, E + 1] of an entity's keys [K]."""


def vector_inputs(setting: Setting) -> dict[str, str]:
    """Input with the vectors of the run's version, by entity."""
    sides = (setting.job.data.user, setting.job.data.pin)
    return {entity: vector_input(side, setting.version) for entity, side in zip(ENTITIES, sides, strict=True)}


def with_vectors(period: RetrievalPeriod, names: Mapping[str, str], read: ReadVectors) -> RetrievalPeriod:
    """A period whose users and Pins have other vectors."""
    sides: dict[str, tuple[Array, Examples]] = {
        "user": (period.user_ids, period.users),
        "pin": (period.pin_ids, period.pins),
    }
    changed = {
        entity: examples.with_inputs({names[entity]: read(entity, keys)}) for entity, (keys, examples) in sides.items()
    }
    return replace(period, users=changed["user"], pins=changed["pin"])


def vectors_at(store: Any, version: EmbeddingVersion, moment: datetime) -> ReadVectors:
    """What a consumer of a version gets at a moment."""
    micros = round(moment.timestamp() * 1_000_000)
    return lambda entity, keys: version_vectors(store, version, entity, keys, np.full(len(keys), micros))


def product(names: Mapping[str, str], temperature: float) -> Represent:
    """The vectors as queries and candidates."""

    def represent(period: RetrievalPeriod) -> tuple[Vectors, Vectors]:
        queries, candidates = period.users.inputs[names["user"]], period.pins.inputs[names["pin"]]
        return (queries[:, :-1] / np.float32(temperature)).astype(np.float32), candidates[:, :-1].astype(np.float32)

    return represent


class ProductRecall:
    """Recall of versions of a scratch repo on the test days, their popularity prior chosen on the validation days."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._names = setting, vector_inputs(setting)

    def recall(self, store: Any, version: EmbeddingVersion) -> Array:
        """Recall@20 of each user [U]."""
        window, delay = self._setting.evaluation.spec.window, self._setting.publish_delay
        starts = {"validation": validation_start(window), "test": window.test_from}
        periods = {
            name: with_vectors(getattr(self.job, name), self._names, vectors_at(store, version, start + delay))
            for name, start in starts.items()
        }
        score = by_inner_product(product(self._names, self.job.recipe.temperature))
        prior: Prior = best_prior(periods["validation"], score, self.job.recipe.prior_weights)[0]
        recall: Array = judged(periods["test"], version.key, [score], prior).recall[0].copy()
        return recall

    @cached_property
    def job(self) -> RetrievalJob:
        """Retrieval of the run."""
        return self._setting.evaluation.retrieval_job()
