"""What the report says about the event log of a run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trainers.data.connection import connect, literal, quote
from trainers.data.dataset import DatasetSpec
from trainers.data.ingest_report import IngestReport
from trainers.report.schema import Data, Surface, TableCount, Task


def summarise(event_log: Path) -> Data:
    """The `data` of a report, from the event log's declaration, ingestion's counts and the impressions.

    Rows and positives per task belong to the evaluation; they are absent here.
    """
    spec = DatasetSpec.model_validate_json((event_log / "spec.json").read_text())
    counts = IngestReport.from_json((event_log / "report.json").read_text())
    num_users, num_pins, surfaces = _read_impressions(event_log, spec)
    return Data(
        title=spec.title,
        license=spec.license or None,
        citation=spec.citation or None,
        impression=spec.impression,
        click=spec.click,
        conversion=spec.conversion or None,
        num_days=len(counts.days),
        warnings=counts.warnings,
        num_users=num_users,
        num_pins=num_pins,
        tables=tuple(
            TableCount(table=name, read=table.read, kept=table.kept, quarantined=table.reasons)
            for name, table in counts.tables.items()
        ),
        label_rates={label: rate for label, rate in counts.label_rates.items() if rate is not None},
        surfaces=surfaces,
        tasks=_tasks(spec),
    )


def _tasks(spec: DatasetSpec) -> tuple[Task, ...]:
    """The tasks that rankers are judged on, under the names of the lift table."""
    judged = {"ctr": spec.ctr_task, "cvr": spec.cvr_task}
    return tuple(
        Task(task=name, label=spec.task(task).label, given=spec.task(task).given)
        for name, task in judged.items()
        if task is not None
    )


def _read_impressions(event_log: Path, spec: DatasetSpec) -> tuple[int, int, tuple[Surface, ...]]:
    """Number of users and of Pins with impressions, and the surfaces, the largest first."""
    source = f"read_parquet({literal(event_log / 'impressions' / '*' / '*.parquet')}, hive_partitioning = false)"
    rates = ", ".join(f"avg({quote(label)})" for label in spec.labels)
    with tempfile.TemporaryDirectory() as temp, connect(temp=Path(temp)) as connection:
        sizes = connection.execute(f"SELECT count(DISTINCT user_id), count(DISTINCT pin_id) FROM {source}").fetchone()
        rows = connection.execute(
            f"SELECT surface, count(*), {rates} FROM {source} GROUP BY surface ORDER BY count(*) DESC, surface"
        ).fetchall()
    assert sizes is not None
    surfaces = (_surface(spec.labels, *row) for row in rows)
    return sizes[0], sizes[1], tuple(surfaces)


def _surface(labels: tuple[str, ...], surface: str, impressions: int, *rates: float | None) -> Surface:
    known = {label: rate for label, rate in zip(labels, rates, strict=True) if rate is not None}
    return Surface(surface=surface, impressions=impressions, label_rates=known)
