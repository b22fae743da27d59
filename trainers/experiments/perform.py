"""Running an experiment on a run: under its lock, with its table written and its report made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainers import run_config
from trainers.evaluation.figures_file import EVALUATION
from trainers.evaluation.step import commit, run_report
from trainers.experiments import aggregation, refresh_cost, staleness, upgrade
from trainers.experiments.results import LAST_STEP, write_table
from trainers.experiments.setting import Setting
from trainers.markers import read_marker
from trainers.progress import Progress
from trainers.run_lock import run_lock
from trainers.steps import RunContext
from trainers.torch_setup import set_up_torch

EXPERIMENTS: Mapping[str, Callable[[Setting], list[dict[str, Any]]]] = {
    "upgrade": upgrade.run,
    "aggregation": aggregation.run,
    "staleness": staleness.run,
    "refresh-cost": refresh_cost.run,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Performed:
    """What an experiment left."""

    rows: list[dict[str, Any]]
    file: Path
    """Its table."""
    seconds: float


def perform(name: str, run: Path, progress: Progress, *, seeds: int | None, retrains: int) -> Performed:
    """Run an experiment, going on where an interrupted one stopped.

    Args:
        seeds: Rankers of each case; as many as the run's own when not given.
        retrains: From-scratch trainings that stand for an upgrade.

    Raises:
        ValueError: There is no such experiment, no such run, or it has not come far enough.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)} (got {name!r})")
    config = run_config.load(run)
    if config is None:
        raise ValueError(f"--run must be the directory of a run (got {str(run)!r}); start one with `headwater run`")
    if read_marker(run, LAST_STEP) is None:
        raise ValueError(
            f"an experiment needs a run with published embeddings (got {str(run)!r}, whose step {LAST_STEP} is not "
            f"done); run `headwater run --run {run}` first"
        )
    started = time.monotonic()
    set_up_torch(config.threads)
    with run_lock(run):
        context = RunContext(config=config)
        setting = Setting(context, progress, seeds=seeds or config.num_seeds, retrains=retrains)
        rows = EXPERIMENTS[name](setting)
        facts = {
            "seeds": setting.job.seeds,
            "retrains": retrains,
            "commit": commit() or "unknown",
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        file = write_table(run, name.replace("-", "_"), rows, facts)
        if context.path(EVALUATION).is_file():
            run_report(context, progress)
    return Performed(rows=rows, file=file, seconds=time.monotonic() - started)
