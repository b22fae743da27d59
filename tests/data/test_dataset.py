"""What a dataset's declaration refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.data.tiny_log import at, tiny_spec
from trainers.data.dataset import Attribute, Conversion, DatasetSpec, SpecError, Task, Window, load_yaml


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("click", "purchase")}, "labels and conversion kinds must be declared once \\(got purchase"),
        ({"labels": ("click", "surface")}, "must not be named like a column of the event log \\(got surface\\)"),
        ({"ctr_task": "love"}, "ctr_task and cvr_task must be one of click, purchase \\(got 'love'\\)"),
        ({"pin_title": "name"}, "pin_title must be one of topics, content \\(got 'name'\\)"),
        ({"quarantine_share": 1.5}, "less than or equal to 1"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_spec_refuses_what_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_spec(**changes)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(name="late", label="refund", domain="conversion"), "label of task late must be one of click, purchase"),
        (
            Task(name="late", label="click", domain="conversion", given="purchase"),
            "given label of task late must be one of click \\(got 'purchase'\\)",
        ),
        (Task(name="purchase", label="click", domain="conversion"), "tasks must be declared once \\(got purchase"),
    ],
)
def test_spec_refuses_tasks_on_unknown_labels(task: Task, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_spec(tasks=(*tiny_spec().tasks, task))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"kind": "vector", "type": "float"}, "a vector needs dim \\(got 0\\)"),
        ({"kind": "dense", "type": "string"}, "kind dense needs type float or int64 \\(got string\\)"),
        ({"kind": "categorical", "type": "float"}, "a categorical needs type string or int64 \\(got float\\)"),
    ],
)
def test_attribute_refuses_types_that_do_not_fit(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Attribute(name="a", **declared)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ((at(2), at(5), at(3), at(6)), "window must increase.*got 2024-01-02T00:00:00\\+00:00, 2024-01-05"),
        ((at(2), at(3), at(5, 1), at(6)), "window must consist of whole days"),
        ((at(2).replace(tzinfo=None), at(3), at(5), at(6)), "timezone"),
    ],
)
def test_window_refuses_disorder_part_days_and_naive_moments(moments: tuple[datetime, ...], message: str) -> None:
    names = ("features_from", "train_from", "test_from", "until")
    with pytest.raises(ValidationError, match=message):
        Window(**dict(zip(names, moments, strict=True)))


def test_window_is_kept_in_utc_and_gives_a_cutoff_a_day() -> None:
    local = [datetime.fromisoformat(f"2024-01-0{day}T00:00:00+08:00") for day in (2, 3, 5, 6)]
    window = Window(features_from=local[0], train_from=local[1], test_from=local[2], until=local[3])
    cutoffs = tiny_spec(window=window).cutoffs()
    assert cutoffs == [datetime(2024, 1, day, 16, tzinfo=UTC) for day in (1, 2, 3, 4, 5)]
    assert cutoffs[0].tzinfo is UTC


def test_spec_survives_json() -> None:
    spec = tiny_spec(conversions=(Conversion(kind="purchase", attribution_days=3),))
    assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kind: purchase\nattribution_days: 2\nwindow: 3\n",
            "c.yaml: window is not a known key \\(got 3\\); remove it",
        ),
        ("kind: purchase\n", "c.yaml: attribution_days is required \\(got nothing\\); add it"),
        ("kind: purchase\nattribution_days: never\n", "c.yaml: attribution_days: .*integer.*\\(got 'never'\\)"),
        ("- purchase\n", "c.yaml must hold keys and values \\(got list\\)"),
        ("kind: [\n", "c.yaml must be YAML in UTF-8 \\(got: "),
    ],
)
def test_yaml_errors_name_file_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_yaml(path, Conversion)


def test_absent_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"must be a readable YAML file \(got No such file or directory\)"):
        load_yaml(tmp_path / "none.yaml", Conversion)


def test_yaml_cannot_make_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("kind: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(SpecError, match="must be YAML in UTF-8"):
        load_yaml(path, Conversion)
