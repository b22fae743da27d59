"""What a day's refresh costs against a full retrain, and the lift that each keeps.

Costs are measured on the run's own sizes. Lifts are those of `aggregation`, where every day was both refreshed by a
warm start and retrained from scratch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainers.experiments.aggregation import ALIGNED, LATEST, WARM, WITHOUT, Case, moving
from trainers.experiments.rankers import Judge, Rankers
from trainers.experiments.refresh_parts import DAY, FULL
from trainers.experiments.setting import Setting
from trainers.steps import remove

REFRESH, RETRAIN = "one day's refresh", "full retrain"
Phases = dict[str, dict[str, float]]


def run(setting: Setting) -> list[dict[str, Any]]:
    """A row for each way to come to a day's vectors and each average over days: cost, lift, shares of the retrain's.

    Raises:
        ValueError: `aggregation` has not been run with these seeds.
    """
    lifts = [_lifts(setting, name) for name in (LATEST, *map(moving, setting.recipe.weights))]
    folder = setting.work("refresh_cost")
    day, full = _measured(setting, folder)
    retrain = _total([full["read"], full["train"], day["train"], day["publish"]])
    refresh = _total(list(day.values()))
    shares = {f"share_of_{name}_pct": 100.0 * refresh[name] / retrain[name] for name in refresh}
    costs = {RETRAIN: retrain, REFRESH: {**refresh, **shares}}
    return [{"way": way, **row, **costs[way]} for pair in lifts for way, row in pair.items()]


def _measured(setting: Setting, folder: Path) -> tuple[Phases, Phases]:
    """Costs of both parts, measured one after the other unless they were before."""
    files = {part: folder / f"{part}.json" for part in (FULL, DAY)}
    missing = [part for part in files if not files[part].is_file()]
    if FULL in missing:
        # A walk that goes on where it stopped would have cost too little.
        remove(folder / "walk")
    with setting.progress.stage("cost of a full retrain and of a day's refresh", len(missing)) as stage:
        for part in missing:
            command = [sys.executable, "-m", "trainers.experiments.refresh_parts"]
            arguments = [str(setting.context.directory), part, str(files[part])]
            subprocess.run([*command, *arguments], check=True, cwd=Path(__file__).parents[2])
            stage.advance()
    day, full = (json.loads(files[part].read_text()) for part in (DAY, FULL))
    return day, full


def _total(phases: list[dict[str, float]]) -> dict[str, float]:
    """Times added up, and the highest memory."""
    times = {name: sum(phase[name] for phase in phases) for name in ("seconds", "cpu_seconds")}
    return {**times, "peak_mb": max(phase["peak_mb"] for phase in phases)}


def _lifts(setting: Setting, average: str) -> dict[str, dict[str, Any]]:
    """Lift of both over no embeddings, and what the refresh keeps of that of the daily retrain."""
    seeds, rankers = setting.job.seeds, Rankers(setting)
    keys = {REFRESH: Case(WARM, average).key, RETRAIN: Case(ALIGNED, average).key}
    try:
        scores = {name: rankers.scores(key, seeds) for name, key in (*keys.items(), (WITHOUT, WITHOUT))}
    except FileNotFoundError as error:
        seeds_option = f"--seeds {len(seeds)}"
        raise ValueError(
            f"refresh-cost takes its lifts from aggregation, which must have run with {seeds_option} (got no {error}); "
            f"run `headwater experiment aggregation --run {setting.context.directory} {seeds_option}` first"
        ) from error
    judge = Judge(setting.job, setting.evaluation.recipe.bootstrap_samples)
    case, against = {"aggregation": average}, {"lift": scores[WITHOUT]}
    retrained = judge.row(case, scores[RETRAIN], against)
    refreshed = judge.row(case, scores[REFRESH], {**against, "change_to_retrain": scores[RETRAIN]})
    kept = 100.0 * refreshed["lift_pct"] / retrained["lift_pct"]
    return {RETRAIN: retrained, REFRESH: {**refreshed, "share_of_lift_pct": kept}}
