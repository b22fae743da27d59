"""`report.json`: what may be in it, what must not, and the published JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from trainers.report.schema import (
    REPORT_FILE,
    EmbeddingCoverage,
    LiftRow,
    Report,
    RetrievalRow,
    Step,
    Window,
    schema_text,
)

_SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "report.schema.json"
_LIFT: dict[str, Any] = {
    "task": "ctr",
    "ranker": "dcn_mmoe",
    "inputs": "both",
    "n_test": 4,
    "roc_auc": 0.75,
    "pr_auc": 0.5,
    "log_loss": 0.6,
}


def test_report_is_the_same_after_save_and_load(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path)

    assert path == tmp_path / REPORT_FILE
    assert Report.load(tmp_path) == report


def test_save_replaces_an_earlier_report_and_leaves_no_partial_file(
    report: Report, bare: Report, tmp_path: Path
) -> None:
    bare.save(tmp_path)
    report.save(tmp_path)

    assert Report.load(tmp_path) == report
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_FILE]


def test_figures_that_were_not_run_are_absent(bare: Report) -> None:
    raw = json.loads(bare.to_json())

    assert set(raw) == {"dataset", "seeds", "window"}


def test_optional_figures_of_a_row_are_absent_and_zeros_stay() -> None:
    row = LiftRow(**_LIFT, roc_auc_lift_pct=0.0)
    raw = json.loads(row.model_dump_json(exclude_defaults=True))

    assert raw == {**_LIFT, "roc_auc_lift_pct": 0.0}


def test_retrieval_figures_have_their_cut_off_in_the_key() -> None:
    row = RetrievalRow(model="two_tower", recall_at_20=0.25, ndcg_at_20=0.125, n_users=8)

    assert json.loads(row.model_dump_json(by_alias=True, exclude_defaults=True)) == {
        "model": "two_tower",
        "recall@20": 0.25,
        "ndcg@20": 0.125,
        "n_users": 8,
    }


@pytest.mark.parametrize("key", ["auc", "roc_auc_lift"])
def test_unknown_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        LiftRow.model_validate({**_LIFT, key: 1.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_metric_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="roc_auc"):
        LiftRow.model_validate({**_LIFT, "roc_auc": value})


def test_interval_is_refused_when_its_ends_are_swapped() -> None:
    with pytest.raises(ValidationError, match=r"lower end first \(got \[2\.0, 1\.0\]\)"):
        LiftRow.model_validate({**_LIFT, "roc_auc_lift_pct": 1.5, "roc_auc_lift_ci95": [2.0, 1.0]})


def test_lift_is_refused_when_a_comparison_appears_twice(bare: Report) -> None:
    row = LiftRow.model_validate(_LIFT)
    with pytest.raises(ValidationError, match="one row per task, ranker and inputs"):
        Report(dataset=bare.dataset, seeds=bare.seeds, window=bare.window, lift=(row, row))


def test_coverage_is_refused_when_the_three_answers_do_not_add_up() -> None:
    with pytest.raises(ValidationError, match=r"must be 1 \(got 0\.75\)"):
        EmbeddingCoverage(
            view="user_embedding_ctr_v1", entity="user", model="ctr", version=1, dim=8, ttl_hours=72, n_rows=4,
            present=0.5, missing=0.25, outside_max_age=0.0,
        )  # fmt: skip


def test_window_is_refused_when_test_begins_before_training_ends(bare: Report) -> None:
    with pytest.raises(ValidationError, match="test must follow train"):
        Window(train=bare.window.test, test=bare.window.train)


def test_null_in_the_file_is_refused_with_its_place(bare: Report, tmp_path: Path) -> None:
    raw = json.loads(bare.to_json()) | {"lift": [{**_LIFT, "gauc": None}]}
    (tmp_path / REPORT_FILE).write_text(json.dumps(raw))

    with pytest.raises(ValueError, match=r"got null at lift\.0\.gauc"):
        Report.load(tmp_path)


@pytest.mark.parametrize(
    ("interval", "significant"),
    [((0.1, 0.5), True), ((-0.5, -0.1), True), ((-0.1, 0.5), False), ((0.0, 0.5), False), (None, None)],
)
def test_lift_is_significant_when_its_interval_excludes_zero(
    interval: tuple[float, float] | None, significant: bool | None
) -> None:
    row = LiftRow(**_LIFT, roc_auc_lift_pct=0.3, roc_auc_lift_ci95=interval)

    assert row.significant is significant


def test_published_schema_is_up_to_date() -> None:
    assert _SCHEMA_FILE.read_text() == schema_text(), "run `python -m trainers.report.schema`"


def test_documentation_names_every_key() -> None:
    text = (_SCHEMA_FILE.parent / "report.md").read_text()

    assert [key for key in Report.model_fields if f"`{key}`" not in text] == []


def test_published_schema_accepts_reports(report: Report, bare: Report) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))

    assert list(validator.iter_errors(json.loads(report.to_json()))) == []
    assert list(validator.iter_errors(json.loads(bare.to_json()))) == []


def test_published_schema_refuses_null_and_unknown_keys(bare: Report) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    raw = json.loads(bare.to_json())

    assert not validator.is_valid(raw | {"machine": None})
    assert not validator.is_valid(raw | {"steps": [{"name": "ingest", "seconds": 1.0, "peak_mb": None}]})
    assert not validator.is_valid(raw | {"auc": 0.5})


def test_step_keeps_zero_seconds() -> None:
    assert json.loads(Step(name="apply", seconds=0.0).model_dump_json(exclude_defaults=True))["seconds"] == 0.0
