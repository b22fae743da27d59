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
from trainers.experiments import ablation, aggregation, consumers, refresh_cost, staleness, upgrade
from trainers.experiments.results import LAST_STEP, table_file, write_table
from trainers.experiments.setting import WORK, Setting
from trainers.markers import read_marker
from trainers.progress import Progress
from trainers.run_config import RunConfig
from trainers.run_lock import run_lock
from trainers.steps import RunContext
from trainers.torch_setup import set_up_torch

EXPERIMENTS: Mapping[str, Callable[[Setting], list[dict[str, Any]]]] = {
    "upgrade": upgrade.run,
    "aggregation": aggregation.run,
    "staleness": staleness.run,
    "refresh-cost": refresh_cost.run,
    "consumers": consumers.run,
    "ablation": ablation.run,
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
    config = _config(name, run)
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


def planned(name: str, run: Path, *, seeds: int | None, retrains: int) -> dict[str, Any]:
    """What an experiment would do: its seeds, its table, and whose models earlier experiments left; writes nothing.

    Raises:
        ValueError: As `perform`.
    """
    config = _config(name, run)
    work = RunContext(config=config).path(WORK)
    return {
        "experiment": name,
        "seeds": [config.seed + number for number in range(seeds or config.num_seeds)],
        "retrains": retrains,
        "file": str(table_file(run, name.replace("-", "_"))),
        "kept": sorted(folder.name for folder in work.glob("*") if folder.is_dir()),
    }


def _config(name: str, run: Path) -> RunConfig:
    """Options of a run that can be studied."""
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
    return config
