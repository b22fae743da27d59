"""Rankers of an experiment: trained on some vectors, kept, and scored on the same rows with others.

Dims: N test rows, S rankers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file

from feature_repo.encoding import Array
from trainers.data.ranking_data import renamed_vectors
from trainers.evaluation.arms import Arm, RankerJob, arm_specs, ranker_config, run_seed, user_days
from trainers.evaluation.boosted_arms import boosted_seed, logistic_seed
from trainers.evaluation.figures import roc_auc_lift
from trainers.experiments.setting import Setting
from trainers.forked import map_forked
from trainers.metrics import check_groups, gauc, gauc_evaluator, roc_auc
from trainers.progress import Progress
from trainers.ranking.model import Ranker
from trainers.ranking.recipes import BoostedRecipe, LogisticRecipe
from trainers.ranking.train import predict
from trainers.resampling import lift_over_users, resampled

Scores = npt.NDArray[np.float32]
_SCORES, _CPU_SECONDS = "scores", "cpu_seconds"


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerRequest:
    """A ranker to train with every seed."""

    name: str
    """Name of its files."""
    job: RankerJob
    """Rows with the vectors that it is trained on."""
    arm: Arm
    """What it reads of them."""
    boosted: BoostedRecipe | None = None
    """Train LightGBM of these sizes in the place of the neural ranker."""
    logistic: LogisticRecipe | None = None
    """With `boosted`, train a logistic regression on its columns in the place of either."""


class Rankers:
    """Trains what is asked for, several at once, and keeps each as soon as it is trained."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._folder = setting, setting.work("rankers")

    def train(self, requests: Sequence[RankerRequest]) -> None:
        """Train the rankers that are not there yet."""
        plan = [(each, seed) for each in requests for seed in each.job.seeds]
        missing = [item for item in plan if not self._file(item[0].name, item[1]).exists()]
        if missing:
            map_forked(
                self._train,
                missing,
                name="rankers",
                workers=self._setting.workers,
                progress=self._setting.progress,
            )

    def scores(self, name: str, seeds: Sequence[int]) -> Scores:
        """Test logits [S, N] of a trained ranker on the vectors that it was trained on, a row a seed."""
        return np.stack([load_file(self._file(name, seed))[_SCORES] for seed in seeds])

    def cpu_seconds(self, name: str, seeds: Sequence[int]) -> float:
        """Processor time of training a ranker, the mean over its seeds."""
        return float(np.mean([load_file(self._file(name, seed))[_CPU_SECONDS][0] for seed in seeds]))

    def rescored(self, request: RankerRequest, inputs: Mapping[str, Array]) -> Scores:
        """Test logits [S, N] of a trained ranker where inputs of the test rows hold something else."""
        job = request.job
        user, pin = arm_specs(job, request.arm)
        examples = job.data.examples.take(job.split.test).with_inputs(dict(inputs))
        test = renamed_vectors(job.data.pin, pin, renamed_vectors(job.data.user, user, examples))
        found = []
        for seed in job.seeds:
            weights = load_file(self._file(request.name, seed))
            del weights[_SCORES], weights[_CPU_SECONDS]
            ranker = Ranker(ranker_config(job, request.arm, user, pin))
            ranker.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
            found.append(predict(ranker.eval(), test)[:, 0])
        return np.stack(found)

    def _train(self, item: tuple[RankerRequest, int], progress: Progress) -> None:
        del progress
        request, seed = item
        file = self._file(request.name, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        # Logits are a column of several tasks', and safetensors writes memory as it lies.
        save_file({name: np.ascontiguousarray(value) for name, value in _trained(request, seed).items()}, partial)
        partial.replace(file)

    def _file(self, name: str, seed: int) -> Path:
        return self._folder / f"{name}_seed{seed}.safetensors"


def _trained(request: RankerRequest, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """Test logits, what they took, and the weights of a neural ranker."""
    started = time.process_time()
    if request.boosted is not None and request.logistic is not None:
        found: dict[str, npt.NDArray[np.generic]] = {
            _SCORES: logistic_seed(request.job, request.arm, request.boosted, request.logistic)[1]
        }
    elif request.boosted is not None:
        found = {_SCORES: boosted_seed(request.job, request.arm, request.boosted, seed)[1]}
    else:
        result = run_seed(request.job, request.arm, seed)
        found = {**result.weights, _SCORES: result.test_logits}
    return found | {_CPU_SECONDS: np.array([time.process_time() - started])}


class Judge:
    """Figures of scores on the test rows, with paired intervals over users."""

    def __init__(self, job: RankerJob, samples: int) -> None:
        rows = job.split.test
        self._labels = job.data.examples.labels[rows, job.columns()[0]]
        self._users, self._days = job.data.user_ids[rows], user_days(job.data, rows)
        self._samples, self._seed = samples, job.seeds[0]

    def row(
        self,
        case: Mapping[str, Any],
        scores: Scores,
        against: Mapping[str, Scores],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> dict[str, Any]:
        """A row of a table: the case, mean ROC-AUC and gAUC of its rankers, and the relative change against others, %.

        Args:
            case: Cells that say what was scored.
            scores: Scores [S, N]; a seed's own row in each.
            against: Scores [S, N] of the same seeds to compare with, by name: `<name>_pct` and its interval.
            rows: Positions among the test rows that are judged; all when not given.
        """
        kept = np.arange(len(self._labels)) if rows is None else rows
        labels, users, days = self._labels[kept], self._users[kept], self._days[kept]
        aucs = [roc_auc(labels, each[kept]) for each in scores]
        row: dict[str, Any] = {
            **case,
            "n_test": len(labels),
            "num_rankers": len(scores),
            "roc_auc": float(np.mean(aucs)),
            "roc_auc_std": float(np.std(aucs)),
        }
        # Where no user saw both outcomes on one day the figure is left out, as in the lift table.
        with suppress(ValueError):
            row["gauc"] = float(np.mean([gauc(labels, each[kept], days) for each in scores]))
        for name, other in against.items():
            beside = float(np.mean([roc_auc(labels, each[kept]) for each in other]))
            row[f"{name}_pct"] = 100.0 * (row["roc_auc"] / beside - 1.0)
            # Where few users have either label the change stands without an interval.
            with suppress(ValueError):
                lift = roc_auc_lift(labels, other[:, kept], scores[:, kept], users, self._samples, self._seed)
                row[f"{name}_ci95"] = (lift.low, lift.high)
        return row

    def gauc_lift(self, scores: Scores, other: Scores) -> dict[str, Any]:
        """Cells with the relative gAUC lift over other scores [S, N], %, where some user saw both outcomes on a day."""
        build = gauc_evaluator(self._days)
        with suppress(ValueError):
            check_groups(self._labels, self._users)
            evaluators = [[build(self._labels, each) for each in side] for side in (other, scores)]
            lift = lift_over_users(*resampled(evaluators, self._users, self._samples, self._seed))
            return {"gauc_lift_pct": lift.lift, "gauc_lift_ci95": (lift.low, lift.high)}
        return {}
