"""What a push is refused for: the text names key, value and remedy, and nothing was written."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo.push.errors import NoInputsError, PushError, TowersError
from feature_repo.push.pusher import Pusher
from feature_repo.push.towers import towers_folder
from feature_repo.versions import Catalogue, UnknownSubjectError, VersionState
from tests.feature_repo.push.pushed_repo import AUTHOR, CUTOFF, NOW, at, pusher_of, record_day, rows_of, write_towers


@pytest.fixture(scope="module")
def refusing(untouched_run: Path) -> Pusher:
    return pusher_of(untouched_run)


@pytest.mark.parametrize(
    ("entity", "ids", "attributes", "said"),
    [
        ("house", [1], {}, "entity must be one of user, pin (got 'house')"),
        ("user", [], {}, "a push must be of 1 to 10000 users (got 0)"),
        ("user", [-1], {}, "user_id must be an integer of 0 to 9223372036854775807 (got -1)"),
        ("user", ["7"], {}, "(got '7')"),
        ("user", [7, 8, 7], {}, "each user must be pushed once (got user_id 7 twice)"),
        ("user", [7], {8: {"score": 1.0}}, "attributes must be of the pushed users [7] (got some of [8])"),
        ("user", [7], {7: {"colour": "red"}}, "attributes of user_id 7 must be declared ones (got 'colour')"),
        ("user", [7], {7: {"score": math.nan}}, "score of user_id 7 must be a finite number (got nan)"),
        ("user", [7], {7: {"score": -math.inf}}, "(got -inf)"),
        ("user", [7], {7: {"score": "high"}}, "score of user_id 7 must be a finite number (got 'high')"),
        ("user", [7], {7: {"score": True}}, "(got True)"),
        ("user", [7], {7: {"age": 1.5}}, "age of user_id 7 must be a 64-bit integer (got 1.5)"),
        ("user", [7], {7: {"age": 2**63}}, "(got 9223372036854775808)"),
        ("user", [7], {7: {"segment": 1}}, "segment of user_id 7 must be a text (got 1)"),
        ("user", [7], {7: {"topics": [1, "two"]}}, "each a 64-bit integer (got [1, 'two'])"),
        ("pin", [7], {7: {"content": [1.0]}}, "content of pin_id 7 must be a list of 2 finite numbers (got [1.0])"),
        ("pin", [7], {7: {"content": [1.0, math.nan]}}, "(got [1.0, nan])"),
    ],
)
def test_push_of_a_wrong_row_is_refused(
    refusing: Pusher, entity: str, ids: list[Any], attributes: dict[int, Any], said: str
) -> None:
    with pytest.raises(PushError, match=re.escape(said)):
        refusing.push(entity, ids, attributes, clock=at)


def test_entity_of_which_nothing_is_known_is_refused(refusing: Pusher, untouched_run: Path) -> None:
    with pytest.raises(NoInputsError, match=r"neither for user_id 700\); give its attributes"):
        refusing.push("user", [700], {700: {"score": None}}, clock=at)
    assert rows_of(untouched_run, "user_embedding_ctr_v1", 700).empty


@pytest.mark.parametrize("moment", [NOW + timedelta(seconds=1), NOW.replace(tzinfo=None)])
def test_event_timestamp_that_is_not_past_is_refused(refusing: Pusher, moment: datetime) -> None:
    with pytest.raises(PushError, match="event_timestamp must have a time zone and be past"):
        refusing.push("user", [1], event_timestamp=moment, clock=at)


def test_event_timestamp_before_the_first_day_is_refused(refusing: Pusher) -> None:
    with pytest.raises(PushError, match="must have vectors before the moment of the push"):
        refusing.push("user", [1], event_timestamp=CUTOFF, clock=at)


def test_unknown_version_is_refused(refusing: Pusher) -> None:
    with pytest.raises(UnknownSubjectError, match="ctr_v9"):
        refusing.push("user", [1], keys=["ctr_v9"], clock=at)


def test_version_that_ended_long_ago_is_refused(refusing: Pusher) -> None:
    with pytest.raises(PushError, match="must not be older than its TTL of 3 days"):
        refusing.push("user", [1], clock=lambda: at(days=4))


def test_run_without_a_version_in_use_is_refused(changing_run: Path) -> None:
    catalogue = Catalogue.of_repo(changing_run / "feature_repo")
    for key in ("ctr_v1", "cvr_v1"):
        catalogue.retire_version(key, **AUTHOR)
    with pytest.raises(PushError, match="must be a version that is candidate, live, or superseded and still read"):
        pusher_of(changing_run).push("user", [1], clock=at)
    with pytest.raises(PushError, match=f"(got {VersionState.RETIRED})"):
        pusher_of(changing_run).push("user", [1], keys=["ctr_v1"], clock=at)


def test_version_without_towers_says_what_to_run(changing_run: Path) -> None:
    towers_folder(changing_run, "cvr_v1", CUTOFF).rename(changing_run / "gone")
    with pytest.raises(TowersError, match=f"run `headwater push --prepare --run {re.escape(str(changing_run))}`"):
        pusher_of(changing_run).push("user", [1], clock=at)
    assert len(rows_of(changing_run, "user_embedding_ctr_v1", 1)) == 1


@pytest.mark.parametrize("file", ["user_tower.onnx", "manifest.json"])
def test_damaged_towers_are_refused(changing_run: Path, file: str) -> None:
    path = towers_folder(changing_run, "ctr_v1", CUTOFF) / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TowersError, match="headwater push --prepare"):
        pusher_of(changing_run).push("user", [1], clock=at)


def test_towers_of_another_space_are_refused(changing_run: Path) -> None:
    towers_folder(changing_run, "ctr_v1", CUTOFF).rename(changing_run / "gone")
    write_towers(changing_run, "ctr", CUTOFF, space_id="aaaaaaaaaaaa")
    with pytest.raises(TowersError, match=r"must be of version ctr_v1's space, 0123456789ab \(got aaaaaaaaaaaa\)"):
        pusher_of(changing_run).push("user", [1], clock=at)


def test_towers_of_the_day_before_serve_until_those_of_the_newest_are_there(changing_run: Path) -> None:
    catalogue, tomorrow = Catalogue.of_repo(changing_run / "feature_repo"), CUTOFF + timedelta(days=1)
    for key in ("ctr_v1", "cvr_v1"):
        record_day(catalogue, key, tomorrow)
    pushed = pusher_of(changing_run).push("user", [1], clock=lambda: at(days=1))
    assert {each.towers for each in pushed.versions} == {CUTOFF}
    write_towers(changing_run, "ctr", tomorrow)
    pushed = pusher_of(changing_run).push("user", [1], keys=["ctr_v1"], clock=lambda: at(days=1, minutes=1))
    assert {each.towers for each in pushed.versions} == {tomorrow}
