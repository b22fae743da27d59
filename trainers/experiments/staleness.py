"""What it costs a consumer to read embeddings of some days ago, or none at all where it was trained with them.

The consumer stays: its models were trained on fresh vectors. Each variant's snapshot of a day holds the vectors that
were published so many days earlier, so entities that came later are missing, as they would be. TTL is left out of it:
the curve is what a TTL is chosen by.
Dims: N test rows, S rankers, U users, P Pins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.encoding import Array
from trainers.data.ranking_data import vector_input
from trainers.evaluation.arms import Arm
from trainers.experiments.ages import FRESH, MISSING, WITHOUT, age_cells, age_name
from trainers.experiments.rankers import Judge, RankerRequest, Rankers
from trainers.experiments.setting import Setting
from trainers.experiments.stale_retrieval import StaleRetrieval
from trainers.experiments.variants import Variants, published
from trainers.upstream.frame import Frame

RANKER = "CTR ranker"


def run(setting: Setting) -> list[dict[str, Any]]:
    """A row for each age, for missing vectors and for a model that never had any: ranker first, then retrieval."""
    return _Staleness(setting, setting.work("staleness")).rows()


class _Staleness:
    """The experiment under way."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting, self._rankers = setting, Rankers(setting)
        version = setting.version
        self._variants = Variants(folder / "repo", version.model, version.ttl_hours, setting.publish_delay)
        self._retrieval = StaleRetrieval(setting, folder / "retrieval")
        self._snapshots = setting.cutoffs()

    def rows(self) -> list[dict[str, Any]]:
        """The table."""
        for age in self._ages():
            self._variants.add(age_name(age), self._aged(age))
        store = self._variants.store()
        stay = RankerRequest(name="v", job=self._setting.job, arm=self._setting.arm)
        without = RankerRequest(name="none", job=self._setting.job, arm=Arm(inputs="none"))
        self._rankers.train([stay, without])
        reach = (self._setting.switch - self._snapshots[0]).days
        versions = {age: self._variants[age_name(age)] for age in self._ages() if age <= reach}
        return [*self._ranker_rows(store, stay, without), *self._retrieval.rows(store, versions)]

    def _ranker_rows(self, store: Any, stay: RankerRequest, without: RankerRequest) -> list[dict[str, Any]]:
        setting, seeds = self._setting, self._setting.job.seeds
        fresh, none = (self._rankers.scores(each.name, seeds) for each in (stay, without))
        judge = Judge(setting.job, setting.evaluation.recipe.bootstrap_samples)
        found = [judge.row(_case(FRESH), fresh, {"change_to_none": none})]
        for age in self._ages():
            rows = self._rows_with_age(age)
            inputs = setting.inputs(store, self._variants[age_name(age)], setting.job.split.test)
            scores = self._rankers.rescored(stay, inputs)
            case = _case(age_name(age)) | _present(inputs, rows)
            found.append(judge.row(case, scores, {"change_to_fresh": fresh, "change_to_none": none}, rows))
        missing = self._rankers.rescored(stay, {name: np.zeros_like(each) for name, each in self._inputs().items()})
        found.append(judge.row(_case(MISSING), missing, {"change_to_fresh": fresh, "change_to_none": none}))
        return [*found, judge.row(_case(WITHOUT), none, {"change_to_fresh": fresh})]

    def _ages(self) -> list[int]:
        """Ages in days, from one on, as far back as there is a snapshot for some test row."""
        newest = self._setting.evaluation.spec.window.until - timedelta(days=1)
        reach = (newest - self._snapshots[0]).days
        return list(range(1, min(self._setting.recipe.max_age_days, reach) + 1))

    def _aged(self, age: int) -> Iterator[tuple[datetime, Frame]]:
        """Snapshots as they were so many days earlier, from the last one before the test on."""
        setting, first = self._setting, self._setting.switch - timedelta(days=1)
        shifted = [cutoff - timedelta(days=age) for cutoff in self._snapshots if cutoff >= first]
        for cutoff, frame in published(setting.offline, setting.version, shifted):
            yield cutoff + timedelta(days=age), frame

    def _rows_with_age(self, age: int) -> npt.NDArray[np.int64]:
        """Test rows late enough that a snapshot of that age exists."""
        setting = self._setting
        oldest = self._snapshots[0] + timedelta(days=age) + setting.publish_delay
        micros = setting.job.data.event_micros[setting.job.split.test]
        return np.flatnonzero(micros >= round(oldest.timestamp() * 1_000_000))

    def _inputs(self) -> Mapping[str, Array]:
        """The run's own vectors of the test rows."""
        data, version, test = self._setting.job.data, self._setting.version, self._setting.job.split.test
        names = [vector_input(side, version) for side in (data.user, data.pin)]
        return {name: data.examples.inputs[name][test] for name in names}


def _case(vectors: str) -> dict[str, Any]:
    return {"model": RANKER, "vectors": vectors, **age_cells(vectors)}


def _present(inputs: Mapping[str, Array], rows: npt.NDArray[np.int64]) -> dict[str, float]:
    """Share of the rows whose user, and whose Pin, had a vector."""
    return {f"{name.split('_')[0]}_present": float(values[rows, -1].mean()) for name, values in inputs.items()}
