"""`evaluation/figures.json`: everything that an evaluation measured, from which the report is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from feature_repo.contract import RepoManifest, write_atomically
from trainers.data.coverage import coverage_rows, freshness_rows
from trainers.data.event_log import EventLog
from trainers.data.optimum import optimum_rows
from trainers.data.prepare import OFFLINE
from trainers.evaluation.arms import ArmResult, RankerJob, Scored
from trainers.evaluation.boosted_arms import RANKER as BOOSTED
from trainers.evaluation.figures import calibration_rows, curves_of, lift_rows
from trainers.evaluation.slices import slice_rows
from trainers.life.text_ids import ids_as_written
from trainers.report.schema import Calibration, Curve, Example, LiftRow, RetrievalRow, SliceRow

if TYPE_CHECKING:
    from trainers.evaluation.step import Evaluation

EVALUATION = "evaluation/figures.json"
Keys = npt.NDArray[np.int64]


def write_figures(
    evaluation: Evaluation,
    rankers: Mapping[str, tuple[RankerJob, list[ArmResult]]],
    boosted: Mapping[str, list[Scored]],
    retrieval: list[RetrievalRow],
) -> list[LiftRow]:
    """Write all figures; returns those of the rankers that a release may have."""
    samples = evaluation.recipe.bootstrap_samples
    lift: list[LiftRow] = []
    others: list[LiftRow] = []
    slices: list[SliceRow] = []
    calibration: list[Calibration] = []
    curves: list[Curve] = []
    tasks: dict[str, dict[str, Any]] = {}
    for name, (job, results) in rankers.items():
        task = {"pctr": "ctr", "pcvr": "cvr"}[name]
        ranker = {"dcn": "DCNv2 + MMoE", "dhen": "DHEN + MMoE"}[job.recipe.backbone]
        lift += lift_rows(job, results, task, ranker, samples)
        if name in boosted:
            others += lift_rows(job, boosted[name], task, BOOSTED, samples)
        slices += slice_rows(job, results[0], results[3], task, samples)
        for result in (results[0], results[-1]):
            calibration.append(calibration_rows(job, result, task, ranker))
            curves.append(curves_of(job, result, task, ranker))
        labels = job.data.examples.labels[job.split.test, job.columns()[0]]
        tasks[task] = {
            "n_train": len(job.split.train),
            "n_test": len(labels),
            "positive_rate": float(labels.mean()),
        }
    test_rows = rankers["pctr"][0].split.test
    figures = {
        "seeds": evaluation.seeds,
        "lift": [_plain(row) for row in (*lift, *others)],
        "slices": [_plain(row) for row in slices],
        "calibration": [_plain(row) for row in calibration],
        "curves": [_plain(row) for row in curves],
        "retrieval": [_plain(row) for row in retrieval],
        "tasks": tasks,
        "optimum": [_plain(row) for row in optimum_rows(evaluation.log)],
        "embeddings": [_plain(row) for row in coverage_rows(*_asked(evaluation, test_rows))],
        "freshness": [_plain(row) for row in freshness_rows(*_asked(evaluation, test_rows), _last_day(evaluation.log))],
        "example": _plain(_example(evaluation)),
    }
    write_atomically(evaluation.context.path(EVALUATION), json.dumps(figures, indent=1) + "\n")
    return lift


def _asked(evaluation: Evaluation, rows: npt.NDArray[np.int64]) -> tuple[Path, RepoManifest, Keys, Keys, Keys]:
    """Where views lie, and users, Pins and moments of some impressions."""
    data = evaluation.data
    keys = (data.user_ids[rows], data.pin_ids[rows], data.event_micros[rows])
    return (evaluation.context.path(OFFLINE), evaluation.manifest, *keys)


def _last_day(log: EventLog) -> date:
    return date.fromisoformat(max(log.report.days))


def _plain(row: Any) -> dict[str, Any]:
    plain: dict[str, Any] = row.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return plain


def _example(evaluation: Evaluation) -> Example:
    """A user of the last test day, for the commands that the run ends with."""
    data, log = evaluation.data, evaluation.log
    last = int(np.argmax(data.event_micros))
    pins = list(dict.fromkeys(int(pin) for pin in data.pin_ids[-3:]))
    (user,) = ids_as_written(log, "user", [int(data.user_ids[last])])
    return Example(user_id=user, surface=str(data.surfaces[last]), pin_ids=tuple(ids_as_written(log, "pin", pins)))
