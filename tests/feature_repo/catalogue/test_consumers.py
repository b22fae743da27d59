"""Who reads an embedding version, and what an operator sees of each."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from sqlalchemy.engine import URL

from feature_repo.versions import Catalogue, Consumer, UnknownSubjectError, record_fields
from tests.feature_repo.catalogue.lives import (
    ALICE,
    BOB,
    add_backfilling,
    add_candidate,
    add_live,
    add_release,
    cutoff,
    day,
    make_visible,
)


def test_release_consumes_its_versions_until_it_is_retired(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1", "cvr_v1")
    add_live(catalogue, "r-2", "ctr_v2", "cvr_v1")
    assert catalogue.consumers("ctr_v1") == [Consumer(kind="release", name="r-1", detail="superseded")]
    assert [each.name for each in catalogue.consumers("cvr_v1")] == ["r-1", "r-2"]
    catalogue.retire_release("r-1", **ALICE)
    assert [each.name for each in catalogue.consumers("cvr_v1")] == ["r-2"]


def test_services_of_teams_consume_and_generated_ones_do_not(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    services = {"ranking__ctr_v1": ["ctr_v1"], "fraud": ["ctr_v1", "ctr_v1"], "ads": ["ctr_v1", "cvr_v7"]}
    catalogue.record_consumers(services, {"ranking__ctr_v1"})
    assert [str(each) for each in catalogue.consumers("ctr_v1")] == [
        "service ads (reads ctr_v1)",
        "service fraud (reads ctr_v1)",
    ]


def test_services_that_are_gone_are_forgotten(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.record_consumers({"fraud": ["ctr_v1"], "ads": ["ctr_v1"]})
    catalogue.record_consumers({"ads": ["ctr_v1"], "empty": []})
    assert [each.name for each in catalogue.consumers("ctr_v1")] == ["ads"]


def test_services_that_did_not_change_wait_for_no_writer(catalogue: Catalogue, url: URL) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.record_consumers({"fraud": ["ctr_v1"]})
    other = Catalogue(url)
    with catalogue._database.writing():
        other.record_consumers({"fraud": iter(["ctr_v1"]), "empty": []})
    assert [each.name for each in other.consumers("ctr_v1")] == ["fraud"]
    other.close()


def test_consumers_of_an_unknown_version_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownSubjectError):
        catalogue.consumers("ctr_v1")


def test_summary_shows_state_age_coverage_drift_and_consumers(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    make_visible(catalogue, "ctr_v1", 0)
    gates = {"coverage_user": 0.75, "coverage_pin": 0.5, "mean_shift_since_reference_pin": 0.2, "finite": 1.0}
    make_visible(catalogue, "ctr_v1", 1, gates=gates)
    catalogue.put_day(day("ctr_v1", 2))
    catalogue.put_day(day("ctr_v1", 2, "failed"))
    found = catalogue.summaries(cutoff(2), publish_delay=timedelta(hours=6))[0]
    assert (found.version.key, found.version.state, found.num_days) == ("ctr_v1", "live", 2)
    assert (found.age_hours, found.hours_left, found.freshness) == (18.0, 54.0, "fresh")
    assert found.coverage == {"coverage_user": 0.75, "coverage_pin": 0.5}
    assert found.drift == {"mean_shift_since_reference_pin": 0.2}
    assert [each.name for each in found.consumers] == ["r-1"]
    assert found.last_tried is not None
    assert found.last_tried.state == "failed"
    assert found.last is not None
    assert (found.last.after, found.last.who) == ("live", "alice@desk")


@pytest.mark.parametrize(
    ("hours", "freshness"),
    [(0, "fresh"), (36, "fresh"), (36.5, "late"), (72, "late"), (72.5, "outside_max_age")],
)
def test_summary_says_late_before_it_says_outside_max_age(
    file_catalogue: Catalogue, hours: float, freshness: str
) -> None:
    add_candidate(file_catalogue, "ctr_v1")
    make_visible(file_catalogue, "ctr_v1", 0)
    assert file_catalogue.summaries(cutoff(0) + timedelta(hours=hours))[0].freshness == freshness


def test_summary_of_a_version_without_days(catalogue: Catalogue) -> None:
    add_backfilling(catalogue, "ctr_v1")
    found = catalogue.summaries(cutoff(0))[0]
    assert (found.newest, found.age_hours, found.hours_left, found.freshness) == (None, None, None, "no_day")
    with pytest.raises(ValueError, match="as_of must be UTC-aware"):
        catalogue.summaries(datetime(2024, 3, 1))


def test_records_are_json(catalogue: Catalogue) -> None:
    add_release(catalogue, "r-1", "ctr_v1")
    make_visible(catalogue, "ctr_v1", 0, gates={"norm": float("nan")})
    records = [catalogue.summaries(cutoff(1))[0], catalogue.release("r-1"), *catalogue.transitions()]
    texts = [json.dumps(record_fields(each), allow_nan=False) for each in records]
    found = json.loads(texts[0])
    assert (found["version"]["state"], found["newest"]["gates"]) == ("candidate", {"norm": "nan"})
    assert found["consumers"] == [{"kind": "release", "name": "r-1", "detail": "candidate"}]


def test_transitions_are_the_newest_ones_oldest_first(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    catalogue.retire_version("ctr_v1", **BOB)
    everything = catalogue.transitions()
    assert [each.id for each in everything] == sorted(each.id for each in everything)
    assert catalogue.transitions(limit=2) == everything[-2:]
    assert [each.after for each in catalogue.transitions("version ctr_v1", limit=1)] == ["retired"]
    assert everything[-1].at > everything[0].at
