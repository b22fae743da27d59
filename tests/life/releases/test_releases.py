"""Releases in the catalogue: recorded, promoted unless a person chose, and remade over a day's Pins."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.release.manifest import ReleaseError, load_manifest
from feature_repo.versions import Catalogue, ReleaseState
from tests.data.small_repo import SmallRepo
from tests.life.releases.small_release import AUTHOR, DAYS, TEMPERATURE, WEIGHT, make_run
from tests.serving.tiny_run import record_releases
from trainers.data.event_log import EventLog
from trainers.life import releases as life
from trainers.life.pin_index import popular_pins
from trainers.life.releases import promote_unless_chosen, promoted_by, release_of_the_day

WHO = "refresh"


@pytest.fixture
def days(small_repo: SmallRepo) -> tuple[datetime, datetime]:
    """The last two cut-offs."""
    before, day = small_repo.spec.cutoffs()[-2:]
    return before, day


@pytest.fixture
def small_run(small_repo: SmallRepo, tmp_path: Path, days: tuple[datetime, datetime]) -> Path:
    """A run whose live release is of the day before."""
    make_run(small_repo, tmp_path / "run", days[0])
    return tmp_path / "run"


def of(run: Path) -> Catalogue:
    return Catalogue.of_repo(run / "feature_repo")


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_release_of_the_day_has_the_models_of_the_live_one_and_the_pins_of_the_day(
    small_run: Path, days: tuple[datetime, datetime]
) -> None:
    catalogue = of(small_run)
    parent = catalogue.release(str(catalogue.pointers().live))
    record = release_of_the_day(small_run, days[1], who=WHO)
    assert (record.parent, record.made_by, record.data_cutoff) == (parent.id, "refresh", days[1])
    assert (record.versions, record.services) == (parent.versions, parent.services)
    assert (record.state, catalogue.pointers().live) == (ReleaseState.LIVE, record.id)
    assert catalogue.release(parent.id).state == ReleaseState.SUPERSEDED
    old, new = (digests(small_run / each.folder) for each in (parent, record))
    assert {name for name in old if old[name] != new[name]} == {"manifest.json", "pins.faiss"}
    manifest = load_manifest(small_run / record.folder)
    expected = popular_pins(EventLog(small_run / "event_log"), days[1])
    assert {surface: list(pins) for surface, pins in manifest.popular.items()} == expected
    assert (manifest.parent, manifest.encoders) == (parent.id, load_manifest(small_run / parent.folder).encoders)


def test_index_of_the_day_holds_that_days_vectors_and_popularity(
    small_run: Path, days: tuple[datetime, datetime]
) -> None:
    record = release_of_the_day(small_run, days[1], who=WHO)
    index = faiss.read_index(str(small_run / record.folder / "pins.faiss"))
    name = f"date={days[1]:%Y-%m-%d}.parquet"
    snapshot = pq.read_table(small_run / "feature_repo/data/offline/pin_embedding_ctr_v1" / name)
    vectors = dict(zip(snapshot["pin_id"].to_pylist(), snapshot["embedding"].to_pylist(), strict=True))
    log = EventLog(small_run / "event_log")
    day = log.impressions(days[1] - timedelta(days=DAYS), days[1])
    clicked = [pin for pin, click in zip(day["pin_id"].to_pylist(), day["click"].to_pylist(), strict=True) if click]
    total = len(clicked) + 0.1 * index.ntotal
    assert index.ntotal == 30
    for pin in (1, 7, 29):
        *vector, popularity = index.reconstruct(pin).tolist()
        assert vector == pytest.approx(vectors[pin], abs=1e-6)
        share = (clicked.count(pin) + 0.1) / total
        assert popularity == pytest.approx(TEMPERATURE * WEIGHT * math.log(share), abs=1e-5)
    # Pin 0 has no upstream vector.
    assert np.abs(index.reconstruct(0)[:-1]).max() == 0.0


def test_release_of_a_day_that_is_live_already_is_left_as_it_is(
    small_run: Path, days: tuple[datetime, datetime]
) -> None:
    first = release_of_the_day(small_run, days[1], who=WHO)
    changes, folders = len(of(small_run).transitions()), sorted((small_run / "releases").iterdir())
    assert release_of_the_day(small_run, days[1], who=WHO) == first
    assert release_of_the_day(small_run, days[0], who=WHO) == first
    assert (len(of(small_run).transitions()), sorted((small_run / "releases").iterdir())) == (changes, folders)


class Killed(BaseException):
    """Stands for a kill: nothing on the way catches it."""


@pytest.mark.parametrize("after", ["write_release_folder", "record_release", "_promote_after"])
def test_release_of_the_day_goes_on_after_a_kill(
    small_run: Path, days: tuple[datetime, datetime], monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    function = getattr(life, after)

    def killed(*arguments: Any, **options: Any) -> None:
        function(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(life, after, killed)
        with pytest.raises(Killed):
            release_of_the_day(small_run, days[1], who=WHO)
    record = release_of_the_day(small_run, days[1], who=WHO)
    assert of(small_run).pointers().live == record.id
    assert len(of(small_run).releases()) == 2
    assert sorted(path.name for path in (small_run / "releases").iterdir()) == sorted(
        each.id for each in of(small_run).releases()
    )
    moves = [each for each in of(small_run).transitions(f"release {record.id}")]
    assert [each.after for each in moves] == ["candidate", "live"]


def test_release_of_the_day_stays_a_candidate_when_another_was_promoted_meanwhile(
    small_run: Path, days: tuple[datetime, datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = of(small_run)
    parent = str(catalogue.pointers().live)
    other = release_of_the_day(small_run, days[1], who=WHO)
    catalogue.rollback(who="a@b", why="worse")
    record = life.record_release

    def slowly(*arguments: Any, **options: Any) -> Any:
        catalogue.promote(other.id, who="a@b", why="better after all")
        return record(*arguments, **options)

    monkeypatch.setattr(life, "record_release", slowly)
    monkeypatch.setattr(life, "popular_pins", lambda *_: {"*": [1]})
    made = release_of_the_day(small_run, days[1], who=WHO)
    assert (made.state, made.parent) == (ReleaseState.CANDIDATE, parent)
    assert catalogue.pointers().live == other.id


def test_release_of_the_day_needs_a_live_one_whose_files_are_whole(
    small_run: Path, days: tuple[datetime, datetime]
) -> None:
    catalogue = of(small_run)
    live = catalogue.release(str(catalogue.pointers().live))
    (small_run / live.folder / "query_tower.onnx").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"query_tower\.onnx must have sha256"):
        release_of_the_day(small_run, days[1], who=WHO)
    catalogue.reset(who="run", why="starts over")
    with pytest.raises(ValueError, match="a release must be live to be remade for a day"):
        release_of_the_day(small_run, days[1], who=WHO)


def test_evaluated_release_goes_live_unless_a_person_chose_the_live_one(catalogue: Catalogue) -> None:
    assert promoted_by(catalogue) == "evaluate"
    assert promote_unless_chosen(catalogue, "tiny-2", **AUTHOR)
    assert catalogue.pointers().live == "tiny-2"
    catalogue.rollback(who="a@b", why="worse")
    assert promoted_by(catalogue) == "a@b"
    assert not promote_unless_chosen(catalogue, "tiny-2", **AUTHOR)
    assert catalogue.pointers().live == "tiny-1"
    assert promote_unless_chosen(catalogue, "tiny-1", **AUTHOR)


def test_evaluated_release_goes_live_after_the_catalogue_was_reset(run: Path, catalogue: Catalogue) -> None:
    catalogue.promote("tiny-2", who="a@b", why="better")
    catalogue.reset(who="run", why="starts over")
    assert promoted_by(catalogue) == ""
    record_releases(catalogue, run)
    assert catalogue.pointers().live == "tiny-1"
