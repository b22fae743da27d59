"""The figures of a run, as `runs/<name>/report.json` holds them.

A figure that was not run is absent from the file: never null, never zero. Every default therefore means "not run",
and `Report.to_json` leaves defaults out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import AwareDatetime, Field, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from feature_repo.contract import write_atomically
from trainers.report.rows import (
    INPUTS_ORDER,
    Calibration,
    CalibrationBin,
    Cell,
    Curve,
    Data,
    DriftDay,
    EmbeddingCoverage,
    Example,
    Inputs,
    Interval,
    LiftRow,
    Optimum,
    RetrievalRow,
    Row,
    ServedRoute,
    SliceRow,
    Step,
    Surface,
    TableCount,
    Task,
    TrainingDay,
    ViewFreshness,
    Window,
)

__all__ = [
    "INPUTS_ORDER",
    "Calibration",
    "CalibrationBin",
    "Cell",
    "Curve",
    "Data",
    "DriftDay",
    "EmbeddingCoverage",
    "Example",
    "Inputs",
    "Interval",
    "LiftRow",
    "Optimum",
    "Report",
    "RetrievalRow",
    "Row",
    "ServedRoute",
    "SliceRow",
    "Step",
    "Surface",
    "TableCount",
    "Task",
    "TrainingDay",
    "ViewFreshness",
    "Window",
    "schema_text",
]

REPORT_FILE, PAGE_FILE = "report.json", "report.html"
SCHEMA_FILE = Path("docs/report.schema.json")


class Report(Row):
    """Everything that a run measured."""

    dataset: str
    commit: str | None = None
    """Commit of the code; absent outside a git checkout."""
    seeds: tuple[int, ...]
    window: Window
    steps: tuple[Step, ...] = ()
    lift: tuple[LiftRow, ...] = ()
    retrieval: tuple[RetrievalRow, ...] = ()
    experiments: dict[str, tuple[dict[str, Cell], ...]] = Field(default={})
    """Further studies of the run, such as `aggregation`, `staleness` and `upgrade`: rows of one table each."""
    created_timestamp: AwareDatetime | None = None
    machine: str | None = None
    core_hours: float | None = Field(default=None, ge=0.0)
    """What the run cost: hours of its steps times the threads that they were given."""
    command: str | None = None
    """Command that makes the same run."""
    intervals: str | None = None
    """How the 95% intervals were computed, in words."""
    data: Data | None = None
    embeddings: tuple[EmbeddingCoverage, ...] = ()
    drift: tuple[DriftDay, ...] = ()
    freshness: tuple[ViewFreshness, ...] = ()
    training: tuple[TrainingDay, ...] = ()
    calibration: tuple[Calibration, ...] = ()
    curves: tuple[Curve, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    optimum: tuple[Optimum, ...] = ()
    served: tuple[ServedRoute, ...] = ()
    example: Example | None = None

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        keys = [(row.task, row.ranker, row.inputs) for row in self.lift]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise ValueError(f"lift must have one row per task, ranker and inputs (got {repeated} twice)")
        return self

    def to_json(self) -> str:
        """Indented JSON without the figures that were not run."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True, indent=2) + "\n"

    def save(self, run_dir: Path) -> Path:
        """Replace `report.json` of a run in one step.

        Returns:
            The path written.
        """
        path = run_dir / REPORT_FILE
        write_atomically(path, self.to_json())
        return path

    @classmethod
    def load(cls, run_dir: Path) -> Self:
        """Report of a run, read back from `save`.

        Raises:
            FileNotFoundError: The run has no report yet.
            ValueError: A null, an unknown key or a value out of range; the message names it.
        """
        path = run_dir / REPORT_FILE
        raw = json.loads(path.read_text())
        nulls = _null_paths(raw)
        if nulls:
            raise ValueError(f"{path}: figures that were not run must be absent (got null at {', '.join(nulls)})")
        return cls.model_validate(raw)


def _null_paths(raw: Any, path: str = "") -> list[str]:
    """Where a parsed JSON value holds null, as dotted paths."""
    if raw is None:
        return [path.lstrip(".")]
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [found for key, value in items for found in _null_paths(value, f"{path}.{key}")]


class _WithoutNull(GenerateJsonSchema):
    """JSON schema in which an optional key may be absent but not null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def schema_text() -> str:
    """JSON schema of `report.json`, as `docs/report.schema.json` holds it."""
    schema = Report.model_json_schema(by_alias=True, schema_generator=_WithoutNull)
    return json.dumps({"$schema": _WithoutNull.schema_dialect, **schema}, indent=2) + "\n"


if __name__ == "__main__":
    write_atomically(SCHEMA_FILE, schema_text())
