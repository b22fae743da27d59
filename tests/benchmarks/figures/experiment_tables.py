"""Tables of `headwater experiment`, from what a run keeps of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from feature_repo.contract import write_atomically
from tests.benchmarks.figures.results import EXPERIMENT_PREFIX, ExperimentResult
from tests.benchmarks.figures.tables import table
from trainers.report.experiment_tables import text_tables, title


def keep_experiments(run: Path, dataset: str, run_name: str, machine: str, folder: Path) -> list[Path]:
    """Write every experiment that a run has to the results.

    Returns:
        The files written.
    """
    paths = []
    for file in sorted((run / "experiments").glob("*.json")):
        made = json.loads(file.read_text())
        retrains = f" --retrains {made['retrains']}" if made["retrains"] > 1 else ""
        option = file.stem.replace("_", "-")
        result = ExperimentResult(
            name=file.stem,
            dataset=dataset,
            command=f"headwater experiment {option} --run runs/{run_name} --seeds {len(made['seeds'])}{retrains}",
            seeds=tuple(made["seeds"]),
            commit=made["commit"],
            machine=machine,
            rows=tuple(made["rows"]),
        )
        path = folder / f"{EXPERIMENT_PREFIX}{dataset}_{file.stem}.json"
        write_atomically(path, result.model_dump_json(indent=1) + "\n")
        paths.append(path)
    return paths


def experiment_sections(results: Sequence[ExperimentResult]) -> Iterator[str]:
    """A heading, tables and an origin per experiment; rows of different kinds have a table each."""
    if results:
        yield "## Experiments\n"
        yield (
            "[upgrades.md](upgrades.md) says how each is made. Changes are relative, intervals over users and paired.\n"
        )
    for result in results:
        yield f"### {title(result.name)}: {result.dataset}\n"
        for each in text_tables(result.rows):
            yield table(each.columns, each.rows, numbers=each.num_numbers)
        seeds = ", ".join(map(str, result.seeds))
        yield f"`{result.command}`, seeds {seeds}, commit `{result.commit}`, {result.machine}.\n"
