"""The `data` of a report against an event log small enough to count by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainers.data.dataset import Conversion, DatasetSpec, Task, Window
from trainers.data.ingest_report import IngestReport, TableReport
from trainers.report.data_summary import summarise
from trainers.report.schema import Surface, TableCount
from trainers.report.schema import Task as ReportedTask


@pytest.fixture(name="event_log")
def event_log_fixture(tmp_path: Path) -> Path:
    days = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    spec = DatasetSpec(
        name="tiny", title="Tiny log", impression="shown", click="clicked", labels=("click", "like"),
        conversions=(Conversion(kind="order", attribution_days=7),),
        tasks=(Task(name="click", label="click", domain="engagement"),
               Task(name="order", label="order", domain="conversion", given="click")),
        ctr_task="click", cvr_task="order",
        window=Window(features_from=days[0], train_from=days[1], test_from=days[2], until=days[3]),
    )  # fmt: skip
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    report = IngestReport(
        tables={"impressions": TableReport(read=5, kept=4, reasons={"duplicate": 1})},
        days={"2024-01-01": 3, "2024-01-02": 0, "2024-01-03": 1},
        surfaces={"home": 3, "feed": 1},
        label_rates={"click": 0.5, "like": None, "order": 0.25},
        warnings=("look here",),
    )
    (tmp_path / "report.json").write_text(report.to_json())
    rows: dict[str, dict[str, list[Any]]] = {
        "2024-01-01": {"user_id": [1, 1, 2], "pin_id": [7, 8, 7], "surface": ["home"] * 3, "click": [1, 0, 0]},
        "2024-01-03": {"user_id": [2], "pin_id": [7], "surface": ["feed"], "click": [1]},
    }
    for day, columns in rows.items():
        path = tmp_path / "impressions" / f"date={day}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        likes = pa.array([None] * len(columns["click"]), pa.int8())
        pq.write_table(pa.table({**columns, "like": likes}), path)
    return tmp_path


def test_summary_counts_what_was_shown(event_log: Path) -> None:
    data = summarise(event_log)

    assert (data.num_days, data.num_users, data.num_pins) == (3, 2, 2)
    assert data.tables == (TableCount(table="impressions", read=5, kept=4, quarantined={"duplicate": 1}),)
    assert data.warnings == ("look here",)


def test_summary_has_rates_only_where_a_label_is_defined(event_log: Path) -> None:
    data = summarise(event_log)

    assert data.label_rates == {"click": 0.5, "order": 0.25}
    assert data.surfaces == (
        Surface(surface="home", impressions=3, label_rates={"click": 1 / 3}),
        Surface(surface="feed", impressions=1, label_rates={"click": 1.0}),
    )


def test_summary_names_tasks_as_the_lift_table_does(event_log: Path) -> None:
    data = summarise(event_log)

    assert data.tasks == (
        ReportedTask(task="ctr", label="click"),
        ReportedTask(task="cvr", label="order", given="click"),
    )
    assert data.license is None
