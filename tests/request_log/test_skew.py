"""Skew of logged answers: none where both stores hold the same, and every kind of it found where they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_repo.layout import open_store
from feature_repo.versions import Catalogue
from tests.request_log.conftest import write_offline
from tests.serving.tiny_run import feature_frames
from trainers.cli import app
from trainers.request_log.skew import ReleaseSkew, measured_skew

ASKED = ({"user_id": 1}, {"user_id": 2, "candidates": [101, 102]}, {"user_id": 3}, {"user_id": 9})
Serve = Callable[..., None]


def measured(run: Path, **given: Any) -> ReleaseSkew:
    catalogue = Catalogue.of_repo(run / "feature_repo")
    (found,) = measured_skew(run, catalogue, run / "request_log", **({"most_answers": 100} | given))
    return found


def skew(run: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["skew", "--run", str(run), *arguments])


def write_online(run: Path, view: str, **values: Any) -> None:
    """Change columns of a view online alone."""
    frame = feature_frames()[view]
    open_store(run / "feature_repo").write_to_online_store(view, frame.assign(**values))


def differing(found: ReleaseSkew, kind: str = "features") -> dict[str, int]:
    return {each.name: each.different for each in getattr(found, kind) if each.different}


def test_stores_that_agree_give_no_skew(run: Path, serve: Serve) -> None:
    serve(*ASKED)
    found = measured(run)
    assert (found.release, found.answers, found.pins) == ("tiny-1", 4, 11)
    assert found.beyond(0.0) == []
    assert {each.name: each.rows for each in found.features} == {
        "user_embedding_ctr_v1__embedding": 4,
        "user_activity__impressions_ever": 4,
        "pin_attributes__price": 11,
        "pin_embedding_ctr_v1__embedding": 11,
    }
    assert {each.name for each in found.scores} == {each.name for each in found.repeated} == {"pctr", "pcvr"}
    # Users 2 and 3 have old activity, user 9 none at all.
    assert found.statuses["user_activity"] == {"present": 1, "outside_max_age": 2, "missing": 1}


def test_value_that_was_changed_online_only_is_found_in_feature_input_and_score(run: Path, serve: Serve) -> None:
    write_online(run, "pin_attributes", price=[0.0, 2.5, 1.0, -1.0, 1.0])
    serve(*ASKED)
    found = measured(run)
    assert differing(found) == {"pin_attributes__price": 4}
    (price,) = (each for each in found.features if each.different)
    assert (price.max_absolute, price.mean_absolute, price.share) == (0.5, pytest.approx(2 / 11), 4 / 11)
    assert differing(found, "inputs") == {"pin_dense": 4}
    assert differing(found, "scores") == {"pctr": 4}
    assert differing(found, "repeated") == {}


def test_user_value_is_counted_once_per_answer(run: Path, serve: Serve) -> None:
    write_online(run, "user_activity", impressions_ever=[11, 20, 30])
    serve(*ASKED)
    found = measured(run)
    assert differing(found) == {"user_activity__impressions_ever": 1}
    assert differing(found, "inputs") == {"user_dense": 3}


def test_row_that_is_in_one_store_only_is_told_from_one_that_differs(run: Path, serve: Serve) -> None:
    frames = feature_frames()
    write_offline(run, "user_embedding_ctr_v1", frames["user_embedding_ctr_v1"].iloc[1:])
    write_offline(
        run,
        "user_activity",
        frames["user_activity"].assign(event_timestamp=frames["user_activity"]["event_timestamp"].max()),
    )
    serve(*ASKED)
    by_name = {each.name: each for each in measured(run).features}
    vector, count = by_name["user_embedding_ctr_v1__embedding"], by_name["user_activity__impressions_ever"]
    assert (vector.different, vector.only_served, vector.only_trained) == (1, 1, 0)
    assert (count.different, count.only_served, count.only_trained) == (2, 0, 2)


def test_answers_are_taken_evenly_and_those_without_pins_left_out(run: Path, serve: Serve) -> None:
    serve(*({"user_id": 1, "candidates": [777]}, *ASKED))
    assert measured(run).answers == 4
    assert measured(run, most_answers=2).answers == 2


def test_log_without_a_whole_answer_is_refused(run: Path, serve: Serve) -> None:
    serve({"user_id": 1, "candidates": [777]})
    refused = skew(run)
    assert refused.exit_code == 2
    assert "must hold whole answers with Pins (got none)" in refused.stderr


def test_degraded_answers_are_counted_and_not_compared(run: Path, serve: Serve) -> None:
    serve({"user_id": 1}, {"user_id": 3})
    (file,) = (run / "request_log" / "responses").rglob("*.parquet")
    answers = pq.read_table(file, partitioning=None)
    place = answers.schema.get_field_index("degraded")
    pq.write_table(answers.set_column(place, "degraded", pa.array([None, "store_down"])), file)
    found = measured(run)
    assert (found.answers, found.degraded, found.pins) == (1, 1, 3)


def test_command_ends_with_1_where_answers_are_skewed_and_prints_json(run: Path, serve: Serve) -> None:
    serve(*ASKED)
    whole = skew(run)
    assert whole.exit_code == 0, whole.output
    assert whole.stdout == "tiny-1: 4 answers, 11 Pins; no skew in 4 features, 5 inputs and 2 scores\n"
    write_online(run, "pin_attributes", price=[0.0, 2.5, 1.0, -1.0, 1.0])
    serve({"user_id": 1})
    skewed = skew(run)
    assert skewed.exit_code == 1
    assert "pin_attributes__price" in skewed.stdout
    assert skew(run, "--most", "0.5").exit_code == 0
    told = json.loads(skew(run, "--json").stdout)
    assert told["skewed"] is True
    (release,) = told["releases"]
    (price,) = (each for each in release["features"] if each["different"])
    assert (price["name"], price["rows"], price["max_absolute"]) == ("pin_attributes__price", 14, 0.5)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--most", "2"], "--most must be a share"),
        (["--release", "tiny-9"], "--release must have logged answers (got tiny-9; they are of tiny-1)"),
        (["--log", "nowhere"], "nowhere must hold logged answers (got none)"),
    ],
)
def test_command_refuses_what_it_cannot_measure(run: Path, serve: Serve, arguments: list[str], names: str) -> None:
    serve({"user_id": 1})
    refused = skew(run, *arguments)
    assert refused.exit_code == 2
    assert names in refused.stderr


def test_damaged_file_is_named(run: Path, serve: Serve) -> None:
    serve({"user_id": 1})
    (file,) = (run / "request_log" / "pins").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    refused = skew(run)
    assert refused.exit_code == 2
    assert "files of the request log must be whole parquet" in refused.stderr
