"""One pass over a dataset: stage it, check it, take its figures, say what they mean."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from trainers.data.adapters import Adapter, AdapterOptions
from trainers.data.checks import EventLogError
from trainers.data.connection import connect
from trainers.data.dataset import DatasetSpec
from trainers.data.event_log import EventLog, ingest
from trainers.data.ingest import rejected
from trainers.data.ingest_report import IngestReport
from trainers.data.inspection.figures import LogFigures
from trainers.data.inspection.findings import findings
from trainers.data.inspection.schema import DataCheck, Finding, TableCheck
from trainers.data.prepare import check_window
from trainers.data.task_checks import check_tasks
from trainers.progress import Progress, share_of


def inspect(spec: DatasetSpec, adapter: Adapter, options: AdapterOptions, temp: Path, progress: Progress) -> DataCheck:
    """Everything that is known of a dataset before a run, in a folder that the caller removes.

    What would stop a run is a finding of level `error`, not an exception.
    """
    staging, out = temp / "staging", temp / "event_log"
    staging.mkdir()
    try:
        with progress.stage("read the files", 100) as stage:
            adapter.stage(staging, options, share_of(stage))
        with progress.stage("check every row", 100) as stage:
            report = ingest(spec, staging, out, now=datetime.now(UTC), progress=share_of(stage))
        check_window(spec.window, report)
        problem = None
    except (EventLogError, ValueError) as error:
        problem = Finding(level="error", text=str(error))
    if not out.exists():
        return _refused(spec, out, problem)
    shutil.rmtree(staging)
    with progress.stage("figures"), tempfile.TemporaryDirectory(dir=temp) as spill:
        return _inspected(EventLog(out), problem, Path(spill))


def _refused(spec: DatasetSpec, out: Path, problem: Finding | None) -> DataCheck:
    """What is known of data that is no event log: the counts, if the rows were read."""
    counts = rejected(out) / "report.json"
    tables = _tables(IngestReport.from_json(counts.read_text())) if counts.exists() else ()
    return DataCheck(dataset=spec.name, tables=tables, findings=(problem,) if problem else ())


def _inspected(log: EventLog, problem: Finding | None, temp: Path) -> DataCheck:
    with connect(temp=temp) as connection:
        figures = LogFigures(connection, log)
        num_impressions, num_users, num_pins = figures.sizes()
        check = DataCheck(
            dataset=log.spec.name,
            num_users=num_users,
            num_pins=num_pins,
            impressions_per_user=num_impressions / max(num_users, 1),
            tables=_tables(log.report),
            columns=tuple(figures.columns()),
            days=tuple(figures.days()),
            surfaces=tuple(figures.surfaces()),
            delays=tuple(figures.delays()),
            tasks=tuple(figures.tasks()),
        )
    errors = [each for each in (problem, _task_problem(log)) if each is not None]
    return check.model_copy(update={"findings": (*errors, *findings(check, log))})


def _task_problem(log: EventLog) -> Finding | None:
    try:
        check_tasks(log)
    except EventLogError as error:
        return Finding(level="error", text=str(error))
    return None


def _tables(report: IngestReport) -> tuple[TableCheck, ...]:
    return tuple(
        TableCheck(table=name, read=table.read, kept=table.kept, quarantined=table.reasons)
        for name, table in report.tables.items()
    )
