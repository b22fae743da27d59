"""What `headwater status` says of versions: age, freshness, coverage, drift, consumers, warnings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService
from typer.testing import CliRunner

from feature_repo.layout import open_store
from feature_repo.versions import Catalogue, DayRecord
from tests.data.small_repo import OPTIONS
from trainers.cli import app
from trainers.data.adapters.synthetic import Synthetic
from trainers.data.event_log import EventLog
from trainers.life.version_status import moment_of, version_status

DAY = datetime(2026, 1, 9, tzinfo=UTC)
GATES = {
    "coverage_user": 0.99,
    "coverage_pin": 0.97,
    "mean_shift_since_reference_user": 0.02,
    "mean_shift_since_reference_pin": 0.05,
    "cosine_to_yesterday_median_user": 0.9,
}


@pytest.fixture
def dated(run: Path, catalogue: Catalogue) -> Path:
    """The run with an event log's declaration, and version 1 with a visible day."""
    (run / "event_log" / "impressions" / "date=2026-01-08").mkdir(parents=True)
    (run / "event_log" / "spec.json").write_text(Synthetic().spec(OPTIONS).model_dump_json())
    add_day(catalogue, "ctr_v1", DAY)
    return run


def add_day(catalogue: Catalogue, key: str, cutoff: datetime, *, failed: tuple[str, ...] = ()) -> None:
    for state in ("generated", "failed") if failed else ("generated", "checked", "visible"):
        given = {"failed": failed if state == "failed" else (), "entities": {"user": 2, "pin": 5}}
        catalogue.put_day(DayRecord(key=key, cutoff=cutoff, state=state, gates=GATES, **given))  # type: ignore[arg-type]


def status(run: Path, catalogue: Catalogue, hours: float, delay: timedelta) -> dict[str, Any]:
    """Status so many hours after the day's vectors may be used."""
    return version_status(run, catalogue, DAY + delay + timedelta(hours=hours))


def of(found: dict[str, Any], key: str) -> dict[str, Any]:
    (version,) = [each for each in found["versions"] if each["version"] == key]
    return dict(version)


@pytest.mark.parametrize(
    ("hours", "freshness", "left", "warned"),
    [
        (24.0, "fresh", 48.0, ""),
        (37.0, "late", 35.0, "newest day 2026-01-09, in 35 h its vectors are outside max age"),
        (75.0, "outside_max_age", -3.0, "its vectors are outside max age since 3 h"),
    ],
)
def test_status_tells_age_against_ttl_and_warns_of_a_late_refresh(
    dated: Path, catalogue: Catalogue, hours: float, freshness: str, left: float, warned: str
) -> None:
    delay = EventLog(dated / "event_log").spec.publish_delay
    found = status(dated, catalogue, hours, delay)
    version = of(found, "ctr_v1")
    assert (version["age_hours"], version["freshness"], version["hours_left"]) == (hours, freshness, left)
    warnings = [text for text in found["warnings"] if "ctr_v1" in text]
    assert len(warnings) == bool(warned)
    if warned:
        assert warned in warnings[0]
        assert f"run `headwater refresh --run {dated} --as-of 2026-01-10`" in warnings[0]


def test_status_tells_state_space_coverage_drift_and_consumers(dated: Path, catalogue: Catalogue) -> None:
    store = open_store(dated / "feature_repo")
    store.apply([FeatureService(name="ads", features=[store.get_feature_view("user_embedding_ctr_v1")])])
    found = version_status(dated, catalogue, DAY)
    version = of(found, "ctr_v1")
    assert (version["state"], version["space_id"], version["num_days"]) == ("live", "0123456789ab", 1)
    assert version["coverage"] == {"coverage_user": 0.99, "coverage_pin": 0.97}
    assert version["drift"] == {"mean_shift_since_reference_user": 0.02, "mean_shift_since_reference_pin": 0.05}
    assert version["entities"] == {"user": 2, "pin": 5}
    assert version["consumers"] == [
        {"kind": "release", "name": "tiny-1", "detail": "live"},
        {"kind": "service", "name": "ads", "detail": "reads ctr_v1"},
    ]
    assert (found["live"], found["shadow"], found["clock"]) == ("tiny-1", None, "given")


def test_status_warns_of_failed_gates_and_of_versions_without_a_day(dated: Path, catalogue: Catalogue) -> None:
    add_day(catalogue, "ctr_v1", DAY + timedelta(days=1), failed=("coverage_pin",))
    found = version_status(dated, catalogue, DAY)
    assert found["warnings"] == [
        "ctr_v1 of 2026-01-10 failed its gates (coverage_pin 0.97); the day before stays visible",
        "ctr_v2 has no visible day; finish its training",
    ]
    assert of(found, "ctr_v1")["last_tried"] == {"day": "2026-01-10T00:00:00+00:00", "state": "failed"}


def test_status_does_not_warn_of_retired_versions(dated: Path, catalogue: Catalogue) -> None:
    catalogue.retire_release("tiny-2", who="a@b", why="a test")
    catalogue.retire_version("ctr_v2", who="a@b", why="a test")
    found = version_status(dated, catalogue, DAY)
    assert (of(found, "ctr_v2")["state"], found["warnings"]) == ("retired", [])


def test_status_calls_the_vectors_of_a_pruned_version_deleted(dated: Path, catalogue: Catalogue) -> None:
    catalogue.retire_release("tiny-2", who="a@b", why="a test")
    catalogue.retire_version("ctr_v2", who="a@b", why="a test")
    catalogue.mark_pruned("version ctr_v2", who="a@b", why="a test")
    shown = CliRunner().invoke(app, ["status", "--run", str(dated)]).stdout
    (line,) = (each for each in shown.splitlines() if each.split()[:2] == ["ctr_v2", "pruned"])
    assert line.split()[-2:] == ["deleted", "nothing"]


def test_log_that_ended_long_ago_is_looked_at_from_its_end(dated: Path, catalogue: Catalogue) -> None:
    log = EventLog(dated / "event_log")
    (log.path / "impressions" / "date=2026-01-10").mkdir()
    assert moment_of(catalogue.versions(), log).kind == "wall"
    catalogue.update_version("ctr_v1", data_until=DAY)
    catalogue.update_version("ctr_v2", data_until=DAY)
    moment = moment_of(catalogue.versions(), log)
    assert (moment.kind, moment.as_of) == ("replay", datetime(2026, 1, 11, tzinfo=UTC) + log.spec.publish_delay)


def test_status_command_shows_versions_and_warnings(dated: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--run", str(dated), "--as-of", "2026-01-11T14:00"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (row,) = [line.split() for line in lines if line.split()[:2] == ["ctr_v1", "live"]]
    assert row[2:4] == ["0123456789ab", "2026-01-09"]
    assert "late" in row
    assert "97.0%" in row
    assert any(line.startswith("  warning: the refresh of ctr_v1 is late") for line in lines)
    found = json.loads(
        CliRunner().invoke(app, ["status", "--run", str(dated), "--as-of", "2026-01-10", "--json"]).stdout
    )
    assert of(found, "ctr_v1")["freshness"] == "fresh"


def test_status_command_refuses_what_is_no_moment(dated: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--run", str(dated), "--as-of", "soon"])
    assert result.exit_code == 2
    assert "--as-of must be a date or a moment like 2026-01-10T06:00 (got 'soon')" in result.stderr
