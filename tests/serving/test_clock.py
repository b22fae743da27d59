"""Which moment counts against TTLs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from feature_repo.release.manifest import ReleaseManifest, load_manifest
from serving.app import create_app
from serving.clock import is_replay, make_clock
from serving.settings import Settings

CUTOFF = datetime(2026, 1, 9, tzinfo=UTC)


@pytest.fixture
def manifest(release_dir: Path) -> ReleaseManifest:
    """A release with a TTL of 72 hours."""
    return load_manifest(release_dir)


def aged(manifest: ReleaseManifest, hours: int) -> ReleaseManifest:
    """The release as if it was made some hours after its data cut-off."""
    return manifest.model_copy(update={"data_cutoff": CUTOFF, "created": CUTOFF + timedelta(hours=hours)})


@pytest.mark.parametrize(("hours", "replay"), [(72, False), (73, True)])
def test_release_is_a_replay_when_older_than_its_ttl(manifest: ReleaseManifest, hours: int, replay: bool) -> None:
    assert is_replay(aged(manifest, hours)) is replay


@pytest.mark.parametrize(("ttl_hours", "after"), [(72, 24), (24, 12)])
def test_replay_stands_a_day_after_the_newest_feature_and_within_every_ttl(
    manifest: ReleaseManifest, ttl_hours: int, after: int
) -> None:
    newest = CUTOFF + timedelta(hours=1)
    version = manifest.embeddings[0].model_copy(update={"ttl_hours": ttl_hours})
    old = aged(manifest, 1000).model_copy(update={"embeddings": (version,)})
    assert make_clock("auto", old, lambda: newest)() == newest + timedelta(hours=after)


@pytest.mark.parametrize("newest", [None, CUTOFF - timedelta(hours=1)])
def test_replay_counts_from_the_data_cutoff_at_least(manifest: ReleaseManifest, newest: datetime | None) -> None:
    assert make_clock("replay", manifest, lambda: newest)() == manifest.data_cutoff + timedelta(days=1)


def test_fixed_moment_is_kept_in_utc(manifest: ReleaseManifest) -> None:
    berlin = datetime(2026, 1, 9, 1, tzinfo=timezone(timedelta(hours=1)))
    moment = make_clock(berlin, manifest, lambda: None)()
    assert (moment, moment.tzinfo) == (CUTOFF, UTC)


@pytest.mark.parametrize("as_of", ["auto", "wall"])
def test_fresh_release_follows_the_wall_clock(manifest: ReleaseManifest, as_of: str) -> None:
    clock = make_clock("auto" if as_of == "auto" else "wall", aged(manifest, 1), lambda: CUTOFF)
    assert abs(clock() - datetime.now(UTC)) < timedelta(minutes=1)


def test_server_replays_an_old_log_from_its_newest_feature(
    settings: Settings, edit_manifest: Callable[..., Path]
) -> None:
    """A day after the newest row among popular Pins, with a `created` far after the cut-off: users are present."""
    release_dir = edit_manifest(created="2030-01-01T00:00:00Z")
    replayed = settings.model_copy(update={"release_dir": release_dir, "as_of": "auto"})
    with TestClient(create_app(replayed)) as client:
        answer = client.post("/v1/recommend", json={"user_id": 1, "surface": "1"}).json()
    assert answer["as_of"] == "2026-01-10T23:00:00Z"
    assert set(answer["user"]["status"].values()) == {"present"}


def test_server_on_the_wall_clock_finds_an_old_log_outside_max_age(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"as_of": "wall"}))) as client:
        status = client.post("/v1/recommend", json={"user_id": 1, "surface": "1"}).json()["user"]["status"]
    assert status["user_activity"] == "outside_max_age"
