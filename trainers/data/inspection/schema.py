"""What a check of a dataset found, for the terminal, the page and `--json`."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["error", "warning", "note"]


class Part(BaseModel):
    """A piece of a check."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Finding(Part):
    """Something that a person should know."""

    level: Level
    """`error`: no run is possible; `warning`: a run is, but look first; `note`: worth knowing."""
    text: str


class ColumnCheck(Part):
    """Values of one column of the event log."""

    table: str
    column: str
    missing: int
    distinct: int
    smallest: str
    largest: str


class TableCheck(Part):
    """What became of the rows of a table."""

    table: str
    read: int
    kept: int
    quarantined: dict[str, int]
    """Rows set aside, by reason."""


class Rates(Part):
    """Impressions of a day or a surface, and the share on which each label is 1."""

    impressions: int
    rates: dict[str, float]


class DayRates(Rates):
    """A UTC day."""

    day: date


class SurfaceRates(Rates):
    """A surface."""

    surface: str


class DelayCheck(Part):
    """How late the conversions of a kind come."""

    kind: str
    count: int
    per_impression: float
    median_days: float
    p95_days: float
    attribution_days: int
    within: float
    """Share that comes inside the attribution window."""


class TaskCheck(Part):
    """Rows that a judged task has to learn and to be judged on."""

    task: str
    part: Literal["train", "validation", "test"]
    start: date
    end: date
    """Exclusive."""
    negatives: int
    positives: int


class DataCheck(Part):
    """Everything about one dataset."""

    dataset: str
    num_users: int = 0
    num_pins: int = 0
    impressions_per_user: float = 0.0
    findings: tuple[Finding, ...] = ()
    tables: tuple[TableCheck, ...] = ()
    columns: tuple[ColumnCheck, ...] = ()
    days: tuple[DayRates, ...] = ()
    surfaces: tuple[SurfaceRates, ...] = ()
    delays: tuple[DelayCheck, ...] = ()
    tasks: tuple[TaskCheck, ...] = ()

    @property
    def has_errors(self) -> bool:
        """Whether no run is possible."""
        return any(finding.level == "error" for finding in self.findings)
