"""Tables of `headwater experiment`, from what a run keeps of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically
from tests.benchmarks.figures.results import EXPERIMENT_PREFIX, ExperimentResult
from tests.benchmarks.figures.tables import table
from trainers.report.wording import interval_pct, signed_pct

TITLES = {
    "upgrade": "What a consumer of version v reads from the day on which its successor is published",
    "aggregation": "Which average of an entity's days serves best",
    "staleness": "What vectors of some days ago cost",
    "refresh_cost": "What a day's refresh costs against training anew",
}
_CHANGES = {
    "change_to_v": "against v refreshed [95 %]",
    "change_to_fresh": "against fresh [95 %]",
    "change_to_latest": "against the latest day's [95 %]",
    "change_to_retrain": "against the retrain [95 %]",
    "lift": "against no embeddings [95 %]",
    "change_to_none": "against no embeddings [95 %]",
}
_NAMES = {
    "roc_auc": "ROC AUC",
    "gauc": "gAUC",
    "recall_at_20": "Recall@20",
    "cosine_to_v": "cosine to v",
    "user_present": "users present",
    "seconds": "s",
    "cpu_seconds": "CPU s",
    "peak_mb": "peak MiB",
    "share_of_seconds_pct": "of the retrain's s",
    "share_of_cpu_seconds_pct": "of its CPU s",
    "share_of_peak_mb_pct": "of its peak",
    "share_of_lift_pct": "of its lift",
}
_LEFT_OUT = ("n_test", "n_users", "num_rankers", "roc_auc_std", "age_days", "pin_present", "recall_ci95")


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
        yield f"### {TITLES.get(result.name, result.name)}: {result.dataset}\n"
        for rows in _kinds(result.rows):
            yield _table(rows)
        seeds = ", ".join(map(str, result.seeds))
        yield f"`{result.command}`, seeds {seeds}, commit `{result.commit}`, {result.machine}.\n"


def _kinds(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows that show the same figure, in the order of the first of each."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault("recall_at_20" if "recall_at_20" in row else "other", []).append(row)
    return list(kinds.values())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in _LEFT_OUT))
    changes = [name for name in _CHANGES if f"{name}_pct" in keys]
    shown = {f"{name}_{part}" for name in changes for part in ("pct", "ci95")}
    plain = [key for key in keys if key not in shown]
    header = [_NAMES.get(key, key.replace("_", " ")) for key in plain] + [_CHANGES[name] for name in changes]
    cells = [[_cell(key, row.get(key)) for key in plain] + [_change(row, name) for name in changes] for row in rows]
    return table(header, cells, numbers=sum(key in _NAMES for key in plain) + len(changes))


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key.endswith("_pct"):
        return f"{value:.1f}%"
    if key.endswith(("seconds", "_mb")):
        return f"{value:,.0f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _change(row: Mapping[str, Any], name: str) -> str:
    if row.get(f"{name}_pct") is None:
        return ""
    return f"{signed_pct(row[f'{name}_pct'])} [{interval_pct(row[f'{name}_ci95'])}]"
