"""`POST /v1/push`: who may push, what is answered, and that the pushed entity is served at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from feature_repo.contract import join_key
from serving.app import create_app
from serving.settings import Settings
from tests.serving.pushed_run import make_pushable
from tests.serving.test_release_routes import BEARER, TOKEN, error
from tests.serving.tiny_run import NOW


@pytest.fixture(scope="module")
def pushable(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose versions have towers: a user's vector is that of (1, 0) turned by nothing, a Pin's of its price."""
    return make_pushable(tiny_run, tmp_path_factory.mktemp("pushable") / "run")


@pytest.fixture(scope="module")
def client(pushable: Path) -> Iterator[TestClient]:
    """A server with a token."""
    settings = Settings(run=pushable, as_of=NOW, threads=1, poll_ms=20, token=TOKEN)  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as ready:
        yield ready


def push(client: TestClient, entity: str, *rows: dict[str, Any], **more: Any) -> Any:
    return client.post("/v1/push", json={"entity": entity, "rows": list(rows), **more}, headers=BEARER)


def features(client: TestClient, entity: str, key: int) -> Any:
    return client.post("/v1/features", json={"entity": entity, "ids": [key]}).json()["results"][0]["views"]


def test_pushed_user_is_served_at_once(client: TestClient) -> None:
    before = client.post("/v1/recommend", json={"user_id": 900, "surface": "1"}).json()
    answer = push(client, "user", {"id": 900, "attributes": {"segment": "a"}})
    after = client.post("/v1/recommend", json={"user_id": 900, "surface": "1"}).json()
    assert answer.status_code == 200
    assert (before["source"], before["cold_start"]) == ("popular", True)
    assert (after["source"], after["cold_start"]) == ("retrieval", False)
    assert after["user"]["status"]["user_embedding_ctr_v1"] == "present"


def test_answer_says_what_was_written(client: TestClient) -> None:
    answer = push(client, "user", {"id": 901, "attributes": {"segment": "never seen"}}, versions=["ctr_v1"]).json()
    (version,) = answer.pop("versions")
    assert (version["version"], version["view"]) == ("ctr_v1", "user_embedding_ctr_v1")
    assert (version["continued"], version["newer_kept"], version["unseen"]) == (0, 0, {"segment": 1})
    assert (answer["entity"], answer["rows"], answer["attributes"]) == ("user", 1, 1)
    assert answer["event_timestamp"] == NOW.isoformat().replace("+00:00", "Z")


def test_pushed_pin_can_be_ranked(client: TestClient) -> None:
    push(client, "pin", {"id": 990, "attributes": {"title": "New", "price": 4.0}})
    views = features(client, "pin", 990)
    assert views["pin_attributes"]["values"] == {"title": "New", "price": 4.0}
    ranked = client.post("/v1/rank", json={"user_id": 1, "surface": "1", "pin_ids": [101, 990]}).json()["ranked"]
    assert [(each["pin_id"], each["title"]) for each in ranked] == [(990, "New"), (101, "Pin 101")]


def test_pushed_pin_is_found_by_the_next_request(client: TestClient) -> None:
    def found() -> list[int]:
        answer = client.post("/v1/recommend", json={"user_id": 1, "surface": "1", "k": 200}).json()
        assert answer["source"] == "retrieval"
        return [each["pin_id"] for each in answer["ranked"]]

    assert 991 not in found()
    push(client, "pin", {"id": 991, "attributes": {"title": "Newer", "price": 9.0}})
    assert found()[0] == 991
    assert len(found()) == len(set(found()))


def test_pushed_pins_are_found_by_a_server_that_starts_later(client: TestClient, pushable: Path) -> None:
    push(client, "pin", {"id": 992, "attributes": {"price": 9.5}})
    with TestClient(create_app(Settings(run=pushable, as_of=NOW, threads=1))) as later:
        ranked = later.post("/v1/recommend", json={"user_id": 1, "surface": "1"}).json()["ranked"]
    assert ranked[0]["pin_id"] == 992


def test_push_needs_the_token(client: TestClient) -> None:
    body = {"entity": "user", "rows": [{"id": 903, "attributes": {"segment": "a"}}]}
    assert error(client.post("/v1/push", json=body))[:2] == (401, "unauthorized")
    wrong = {"authorization": "Bearer not-the-token-at-all"}
    assert error(client.post("/v1/push", json=body, headers=wrong))[:2] == (401, "unauthorized")
    assert features(client, "user", 903)["user_embedding_ctr_v1"]["status"] == "missing"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"entity": "house", "rows": [{"id": 1}]}, "entity: Input should be 'user' or 'pin'"),
        ({"entity": "user", "rows": []}, "rows: List should have at least 1 item"),
        ({"entity": "user", "rows": [{"id": 1}] * 1001}, "rows: List should have at most 1000 items"),
        ({"entity": "user"}, "rows: Field required"),
        ({"entity": "user", "rows": [{"id": "7"}]}, "rows.0.id must be a number, as the user ids"),
        ({"entity": "user", "rows": [{"id": 7, "colour": 1}]}, "rows.0.colour: Extra inputs are not permitted"),
        ({"entity": "user", "rows": [{"id": 7}, {"id": 7}]}, "each user must be pushed once (got user_id 7 twice)"),
        ({"entity": "user", "rows": [{"id": 7, "attributes": {"colour": 1}}]}, "must be declared ones (got 'colour')"),
        ({"entity": "user", "rows": [{"id": 7, "attributes": {"segment": 1}}]}, "must be a text (got 1)"),
        ({"entity": "user", "rows": [{"id": 7}]}, "neither for user_id 7); give its attributes"),
        ({"entity": "user", "rows": [{"id": 1}], "event_timestamp": "2026-01-01T00:00:00"}, "timezone"),
        ({"entity": "user", "rows": [{"id": 1}], "event_timestamp": "2036-01-01T00:00:00Z"}, "must have a time zone"),
    ],
)
def test_push_of_a_wrong_body_is_refused(client: TestClient, body: dict[str, Any], said: str) -> None:
    status, _, message = error(client.post("/v1/push", json=body, headers=BEARER))
    assert status == 422
    assert said in message


def test_not_a_number_is_refused(client: TestClient) -> None:
    body = '{"entity": "pin", "rows": [{"id": 7, "attributes": {"price": NaN}}]}'
    status, code, message = error(client.post("/v1/push", content=body, headers=BEARER))
    assert (status, code) == (422, "push_refused")
    assert f"price of {join_key('pin')} 7 must be a finite number (got nan)" in message


def test_unknown_version_is_not_found(client: TestClient) -> None:
    assert error(push(client, "user", {"id": 1}, versions=["ctr_v9"]))[:2] == (404, "unknown_version")


def test_server_without_towers_says_what_to_run(changing_run: Path) -> None:
    settings = Settings(run=changing_run, as_of=NOW, threads=1, token=TOKEN)  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        status, code, message = error(push(client, "user", {"id": 1}))
    assert (status, code) == (409, "no_towers")
    assert f"run `headwater push --prepare --run {changing_run}`" in message


def test_server_without_a_token_takes_no_push(tiny_run: Path) -> None:
    with TestClient(create_app(Settings(run=tiny_run, as_of=NOW, threads=1))) as client:
        assert error(push(client, "user", {"id": 1}))[:2] == (403, "writes_closed")


def test_server_of_one_folder_takes_no_push(pushable: Path) -> None:
    folder = pushable / "releases" / "tiny-1"
    settings = Settings(run=pushable, release_dir=folder, as_of=NOW, threads=1, token=TOKEN)  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        assert error(push(client, "user", {"id": 1}))[:2] == (409, "no_catalogue")
