"""From answers to training data: serve, click, make impressions, ingest them, join features."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from tests.serving.tiny_run import NOW
from trainers.cli import app
from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.event_log import EventLog, ingest, log_progress
from trainers.data.frames import point_in_time_frame
from trainers.data.own_data import load

Serve = Callable[..., None]
SHOWN = [102, 105, 103]
"""What user 1 is shown on surface 1, best first; Pins 105 and 103 score alike and keep retrieval order."""


def impressions(run: Path, out: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["impressions", "--run", str(run), "--out", str(out), *arguments])


def write_clicks(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def read(out: Path) -> list[dict[str, Any]]:
    (file,) = (out / "impressions").glob("*.parquet")
    assert file.name == f"date={NOW:%Y-%m-%d}.parquet"
    rows: list[dict[str, Any]] = pq.read_table(file, partitioning=None).to_pylist()
    return sorted(rows, key=lambda row: (row["user_id"], row["position"]))


def test_served_answers_become_an_event_log_with_the_features_that_were_served(
    run: Path, serve: Serve, tmp_path: Path
) -> None:
    serve({"user_id": 1}, {"user_id": 3, "candidates": [101]})
    clicks = tmp_path / "clicks.csv"
    clicks.write_text(f"request_id,pin_id\nr0,{SHOWN[1]}\nr1,101\nr1,999\n")
    told = impressions(run, tmp_path / "served", "--clicks", str(clicks), "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["answers"], found["impressions"], found["clicks"], found["unmatched"]) == (2, 4, 3, 1)
    assert found["labels"] == {"click": 2}
    assert found["click_rate"] == 0.5

    spec, adapter = load(tmp_path / "served" / "dataset.yaml")
    staging = tmp_path / "staging"
    staging.mkdir()
    adapter.stage(staging, AdapterOptions(), log_progress)
    report = ingest(spec, staging, tmp_path / "event_log", now=NOW + timedelta(days=9))
    assert report.tables["impressions"].kept == 4
    log = EventLog(tmp_path / "event_log")
    rows = log.impressions(spec.window.test_from, spec.window.until)
    assert sorted(
        zip(rows["user_id"].to_pylist(), rows["pin_id"].to_pylist(), rows["click"].to_pylist(), strict=True)
    ) == [
        (1, 102, 0),
        (1, 103, 0),
        (1, 105, 1),
        (3, 101, 1),
    ]
    assert rows["like"].null_count == 4
    frame = point_in_time_frame(run / "feature_repo", rows, "ranking__ctr_v1")
    logged = pq.read_table(run / "request_log" / "pins", partitioning=None)
    served = dict(zip(logged["pin_id"].to_pylist(), logged["pin_attributes__price"].to_pylist(), strict=True))
    joined = dict(zip(frame["pin_id"].to_pylist(), frame["pin_attributes__price"].to_pylist(), strict=True))
    assert joined == served


def test_impressions_have_position_sampling_rate_and_the_moment_of_the_features(
    run: Path, serve: Serve, tmp_path: Path
) -> None:
    serve({"user_id": 1})
    assert impressions(run, tmp_path / "served").exit_code == 0
    rows = read(tmp_path / "served")
    assert [(row["position"], row["pin_id"]) for row in rows] == list(enumerate(SHOWN, start=1))
    assert {(row["surface"], row["event_timestamp"], row["sampling_rate"]) for row in rows} == {("1", NOW, 1.0)}
    assert {row["click"] for row in rows} == {None}
    assert len({row["impression_id"] for row in rows}) == 3


def test_labels_are_those_that_the_clicks_name_and_others_stay_unknown(run: Path, serve: Serve, tmp_path: Path) -> None:
    serve({"user_id": 1})
    likes = write_clicks(tmp_path / "likes.parquet", {"request_id": "r0", "pin_id": 105, "label": "like"})
    impressions(run, tmp_path / "served", "--clicks", str(likes))
    assert [(row["click"], row["like"]) for row in read(tmp_path / "served")] == [(0, 0), (0, 1), (0, 0)]


def test_click_belongs_to_the_newest_answer_before_it(run: Path, serve: Serve, tmp_path: Path) -> None:
    """A client that uses a request id again: the click is of the first answer, for the second is later."""
    serve({"user_id": 1})
    between = datetime.now(UTC)
    serve({"user_id": 2, "candidates": [102]})
    click = write_clicks(tmp_path / "clicks.parquet", {"request_id": "r0", "pin_id": 102, "event_timestamp": between})
    impressions(run, tmp_path / "served", "--clicks", str(click))
    assert [(row["user_id"], row["click"]) for row in read(tmp_path / "served")] == [(1, 1), (1, 0), (1, 0), (2, 0)]


def test_clicks_name_pins_by_their_texts_where_keys_are_texts(run: Path, serve: Serve, tmp_path: Path) -> None:
    """As a text, 102 is the key of another Pin than the number 102."""
    serve({"user_id": 1})
    (run / "event_log" / "keys_pin.parquet").touch()
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("request_id,pin_id\nr0,102\n")
    found = json.loads(impressions(run, tmp_path / "served", "--clicks", str(clicks), "--json").stdout)
    assert (found["clicks"], found["unmatched"]) == (1, 1)


def test_same_log_gives_the_same_impression_ids(run: Path, serve: Serve, tmp_path: Path) -> None:
    serve({"user_id": 1}, {"user_id": 3})
    for name in ("first", "second"):
        impressions(run, tmp_path / name)
    assert read(tmp_path / "first") == read(tmp_path / "second")


def test_declaration_names_users_pins_and_labels_of_the_run(run: Path, serve: Serve, tmp_path: Path) -> None:
    serve({"user_id": 1})
    told = impressions(run, tmp_path / "served")
    assert "1 answers, 3 impressions (no label known)" in told.stdout
    declared = yaml.safe_load((tmp_path / "served" / "dataset.yaml").read_text())
    assert declared["tables"]["impressions"]["labels"] == {"click": "click", "like": "like"}
    assert set(declared["tables"]) == {"impressions", "users", "pins"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("request_id\nr0\n", "must have request_id, pin_id (lacks pin_id)"),
        ("request_id,pin_id,label\nr0,102,sale\n", "label of the clicks must be one of click, like (got sale)"),
    ],
)
def test_clicks_that_cannot_be_joined_are_refused_and_leave_nothing(
    run: Path, serve: Serve, tmp_path: Path, text: str, names: str
) -> None:
    serve({"user_id": 1})
    clicks = tmp_path / "clicks.csv"
    clicks.write_text(text)
    refused = impressions(run, tmp_path / "served", "--clicks", str(clicks))
    assert refused.exit_code == 2, refused.output
    assert names in refused.stderr
    assert not list(tmp_path.glob("*served*"))
    (tmp_path / "served").mkdir()
    assert "--out must not exist yet" in impressions(run, tmp_path / "served").stderr
