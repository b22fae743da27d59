"""An A/B split by user: who is in which arm, what answers them, and how it begins and ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.versions import InUseError, Split, WrongStateError
from serving.experiments import CONTROL, HOLDOUT, TREATMENT, assigned
from tests.serving.test_follow import ANSWERS, PATIENCE_S, served, settled

NUM_USERS = 20_000
TOKEN = "a-token-of-thirty-two-characters"
WHO: dict[str, Any] = {"who": "a@b", "why": "a trial"}


def declared(**changes: Any) -> Split:
    return Split(**({"name": "trial", "release": "tiny-2", "share": 0.3, "holdout": 0.2, "salt": "s1"} | changes))


def arms(split: Split, num_users: int = NUM_USERS) -> list[str]:
    return [assigned(split, user).arm for user in range(num_users)]


def in_arm(arm: str, **changes: Any) -> int:
    """First user in an arm."""
    return next(user for user in range(1, 1000) if assigned(declared(**changes), user).arm == arm)


def ask(client: TestClient, user_id: int, path: str = "/v1/recommend") -> dict[str, Any]:
    body = {"user_id": user_id, "surface": "0"} | ({"pin_ids": [102]} if path == "/v1/rank" else {"k": 1})
    answer: dict[str, Any] = client.post(path, json=body).json()
    return answer


def test_shares_of_the_users_are_as_declared() -> None:
    found = arms(declared())
    # Four standard deviations of a share of .5.
    assert 4 * math.sqrt(0.25 / NUM_USERS) < 0.015
    for arm, share in ((TREATMENT, 0.3), (HOLDOUT, 0.2), (CONTROL, 0.5)):
        assert found.count(arm) / NUM_USERS == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(("share", "holdout", "arm"), [(1.0, 0.0, TREATMENT), (1e-9, 0.999999999, HOLDOUT)])
def test_share_of_one_takes_everyone(share: float, holdout: float, arm: str) -> None:
    assert set(arms(declared(share=share, holdout=holdout), 500)) == {arm}


@given(user=st.integers(0, 2**63 - 1), salt=st.text(st.characters(codec="ascii"), min_size=1, max_size=64))
def test_user_stays_in_the_arm_and_leaves_it_only_for_a_changed_share(user: int, salt: str) -> None:
    first = assigned(declared(salt=salt), user)
    assert assigned(declared(salt=salt), user) == first
    if first.arm == TREATMENT:
        assert assigned(declared(salt=salt, share=0.4), user).arm == TREATMENT
    if first.arm == HOLDOUT:
        assert assigned(declared(salt=salt, share=0.7), user).arm == HOLDOUT


def test_arms_are_those_of_every_version() -> None:
    """Worked out once: a change of the hash would move users between arms of running splits."""
    assert [assigned(declared(), user).arm for user in (0, 1, 2, 3, 712)] == [
        "control",
        "holdout",
        "control",
        "treatment",
        "control",
    ]


def test_arms_of_two_salts_are_independent() -> None:
    halves = [arms(declared(share=0.5, holdout=0.0, salt=salt)) for salt in ("s1", "s2")]
    both = sum(first == second == TREATMENT for first, second in zip(*halves, strict=True))
    assert both / NUM_USERS == pytest.approx(0.25, abs=0.015)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"share": 0.0}, "share must be above 0"),
        ({"share": 0.9, "holdout": 0.2}, "together at most 1"),
        ({"name": "two words"}, "name of a split must match"),
        ({"salt": ""}, "salt must have 1 to 64 bytes"),
    ],
)
def test_split_that_cannot_be_is_refused(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        declared(**changes)


def test_split_answers_each_arm_from_its_release_and_says_which(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        assert ask(client, 1)["split"] is None
        catalogue.split(declared(), **WHO)
        assert settled(lambda: follower.split is not None)
        assert client.get("/readyz").json()["split"] == "tiny-2"
        for arm, release in ((TREATMENT, "tiny-2"), (CONTROL, "tiny-1"), (HOLDOUT, "tiny-1")):
            for path in ("/v1/recommend", "/v1/rank"):
                answer = ask(client, in_arm(arm), path)
                assert (answer["release"], answer["embeddings"]) == (release, ANSWERS[release][0])
                assert answer["split"] == {"name": "trial", "arm": arm}
        catalogue.split(None, who="a@b", why="seen enough")
        assert settled(lambda: follower.split is None)
        assert ask(client, in_arm(TREATMENT))["split"] is None


def test_split_ends_when_its_release_is_promoted(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        catalogue.split(declared(), **WHO)
        assert settled(lambda: follower.split is not None)
        split = follower.split
        assert split is not None
        tried = split.recommender
        catalogue.promote("tiny-2", who="a@b", why="it was better")
        assert settled(lambda: follower.split is None and follower.recommender is tried)
        assert catalogue.pointers().split is None
        assert ask(client, in_arm(CONTROL))["release"] == "tiny-2"


def test_release_of_a_split_is_verified_like_the_live_one(changing_run: Path) -> None:
    """Until it can be loaded the live release answers in its stead, and the assignment stays what it is."""
    program = changing_run / "releases" / "tiny-2" / "ctr.onnx"
    whole = program.read_bytes()
    program.write_bytes(whole[:-1])
    with served(changing_run) as (client, follower, catalogue):
        catalogue.split(declared(), **WHO)
        assert settled(lambda: follower.split_refusal is not None)
        (warning,) = client.get("/readyz").json()["warnings"]
        assert "tiny-2/ctr.onnx must have sha256" in warning
        answer = ask(client, in_arm(TREATMENT))
        assert (answer["release"], answer["split"]["arm"]) == ("tiny-1", TREATMENT)
        program.write_bytes(whole)
        assert settled(lambda: ask(client, in_arm(TREATMENT))["release"] == "tiny-2", PATIENCE_S)
        assert client.get("/readyz").json()["warnings"] == []


def test_split_begins_and_ends_over_http_with_the_token(changing_run: Path) -> None:
    begin, head = "/v1/releases/tiny-2/split", {"authorization": f"Bearer {TOKEN}"}
    asked = {"share": 0.3, "holdout": 0.2, "name": "trial", "salt": "s1"}
    with served(changing_run, token=TOKEN) as (client, follower, _):
        assert client.post(begin, json=asked).status_code == 401
        assert client.post(begin, json=asked | {"holdout": 0.8}, headers=head).status_code == 422
        assert client.post(begin, json={"share": 2.0}, headers=head).status_code == 422
        assert client.post("/v1/releases/tiny-1/split", json=asked, headers=head).status_code == 409
        assert client.post("/v1/releases/tiny-9/split", json=asked, headers=head).status_code == 404
        begun = client.post(begin, json=asked, headers=head).json()
        assert begun["split"] == {"name": "trial", "release": "tiny-2", "share": 0.3, "holdout": 0.2}
        assert client.get("/v1/releases").json()["split"] == begun["split"]
        assert settled(lambda: ask(client, in_arm(TREATMENT))["release"] == "tiny-2")
        ended = client.post("/v1/releases/split/end", json={}, headers=head).json()
        assert ended == {"split": None, "revision": begun["revision"] + 1}
        assert settled(lambda: follower.split is None)


def test_release_of_a_split_cannot_be_retired_and_a_live_one_not_be_split(changing_run: Path) -> None:
    with served(changing_run) as (_, __, catalogue):
        with pytest.raises(WrongStateError, match="release tiny-1"):
            catalogue.split(declared(release="tiny-1"), **WHO)
        first = catalogue.split(declared(), **WHO)
        assert catalogue.split(declared(), **WHO) == first
        with pytest.raises(InUseError, match=r"pointer split \(tiny-2\)"):
            catalogue.retire_release("tiny-2", **WHO)
        (last,) = catalogue.transitions("pointers", limit=1)
        assert last.details["split"]["salt"] == "s1"
