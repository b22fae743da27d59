"""Committed figures: one JSON file per benchmark in `tests/benchmarks/results`, and one per dataset for the lift.

A benchmark's file is a list of rows. A figure that was not run is absent: never null, never zero. The lift of a dataset
is a part of a run's report, under the same keys, in `lift_<dataset>.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from feature_repo.contract import write_atomically
from trainers.report.schema import REPORT_FILE, Report

RESULTS = Path(__file__).parents[1] / "results"
LIFT_PREFIX, EXPERIMENT_PREFIX, OUTPUT_SUFFIX = "lift_", "experiment_", "_output.txt"
_OTHERS = (LIFT_PREFIX, EXPERIMENT_PREFIX)
"""Files that hold no rows of measurements."""


class ResultRow(BaseModel):
    """One measurement; ratios are computed from rows, never stored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    name: str
    """What was measured."""
    params: dict[str, str | int | float] = {}
    """Under which circumstances; sizes, names and the command."""
    unit: str
    """Unit of `ours`, `stock`, `raw` and `spread`."""
    ours: float | None = None
    stock: float | None = None
    """The same with Feast's own parts."""
    raw: float | None = None
    """The same with the bare client library, where that is possible."""
    spread: float | None = None
    """Largest less smallest of the repetitions; the figures are their median."""
    peak_mb: float | None = None
    """Highest resident memory, MiB."""
    n: int | None = None
    """Rows, or repetitions where there are no rows."""
    machine: str
    commit: str


class ExperimentResult(BaseModel):
    """One experiment on one run, as it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    dataset: str
    command: str
    seeds: tuple[int, ...]
    commit: str
    machine: str
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Everything that the documents show."""

    rows: tuple[ResultRow, ...] = ()
    lift: tuple[Report, ...] = ()
    """Lift and retrieval by dataset; reports without what other files hold."""
    experiments: tuple[ExperimentResult, ...] = ()
    demo_output: str = ""
    """What the demo's run printed last."""

    def named(self, name: str) -> list[ResultRow]:
        """Rows of one measurement."""
        return [row for row in self.rows if row.name == name]


def load(folder: Path = RESULTS) -> Results:
    """All committed figures, by file name.

    Raises:
        ValueError: A file holds a null or an unknown key; the text names the file.
    """
    files = sorted(folder.glob("*.json"))
    output = folder / f"demo{OUTPUT_SUFFIX}"
    return Results(
        rows=tuple(row for file in files if not file.name.startswith(_OTHERS) for row in _rows(file)),
        lift=tuple(_report(file) for file in files if file.name.startswith(LIFT_PREFIX)),
        experiments=tuple(
            ExperimentResult.model_validate_json(file.read_text())
            for file in files
            if file.name.startswith(EXPERIMENT_PREFIX)
        ),
        demo_output=output.read_text() if output.exists() else "",
    )


def write_rows(name: str, rows: Sequence[ResultRow], folder: Path = RESULTS) -> Path:
    """Replace the file of one benchmark."""
    path = folder / f"{name}.json"
    write_atomically(path, json.dumps([row.model_dump(exclude_none=True) for row in rows], indent=1) + "\n")
    return path


def write_lift(report: Report, folder: Path = RESULTS) -> Path:
    """Replace the lift of the report's dataset."""
    path = folder / f"{LIFT_PREFIX}{report.dataset}.json"
    write_atomically(path, report.to_json())
    return path


def check_finished(run: Path) -> None:
    """Pass when a run has a report.

    Raises:
        SystemExit: It has none.
    """
    if not (run / REPORT_FILE).is_file():
        raise SystemExit(f"--run must be a finished run (got {run}, which has no {REPORT_FILE}); run make demo first")


def _rows(file: Path) -> list[ResultRow]:
    return [ResultRow.model_validate(row) for row in _without_null(file, json.loads(file.read_text()))]


def _report(file: Path) -> Report:
    raw: Any = json.loads(file.read_text())
    _without_null(file, [raw])
    return Report.model_validate(raw)


def _without_null(file: Path, rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} must hold a list of rows (got {type(rows).__name__}); run the benchmark again")
    nulls = sorted({key for row in rows for key, value in row.items() if value is None})
    if nulls:
        raise ValueError(f"{file}: figures that were not run must be absent (got null for {', '.join(nulls)})")
    return rows
