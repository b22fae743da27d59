"""`/v1/releases`: what is there, and who may change which one is live."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from feature_repo.versions import Catalogue
from serving.app import create_app
from serving.settings import Settings
from tests.serving.test_follow import break_release, recommend, settled
from tests.serving.tiny_run import NOW, SPACES

TOKEN = "a-token-of-thirty-two-characters"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def writable(changing_run: Path) -> Iterator[TestClient]:
    """A server whose write routes are open."""
    settings = Settings(run=changing_run, as_of=NOW, threads=1, poll_ms=20, token=TOKEN)  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        yield client


def error(response: Any) -> tuple[int, str, str]:
    detail = response.json()["error"]
    return response.status_code, detail["code"], detail["message"]


def test_releases_are_listed_newest_first_with_what_this_process_answers_from(client: TestClient) -> None:
    answer = client.get("/v1/releases").json()
    assert (answer["live"], answer["loaded"], answer["refused"], answer["shadow"]) == ("tiny-1", "tiny-1", None, None)
    found = [(each["id"], each["state"], each["spaces"]) for each in answer["releases"]]
    expected = [("tiny-2", "candidate", {"ctr_v2": SPACES[2]}), ("tiny-1", "live", {"ctr_v1": SPACES[1]})]
    assert found == expected


def test_promote_route_makes_a_release_live_and_rollback_undoes_it(writable: TestClient, changing_run: Path) -> None:
    answer = writable.post("/v1/releases/tiny-2/promote", json={"why": "better"}, headers=BEARER)
    assert (answer.status_code, answer.json()["live"]) == (200, "tiny-2")
    assert settled(lambda: recommend(writable)["release"] == "tiny-2")
    answer = writable.post("/v1/releases/rollback", json={}, headers=BEARER)
    assert (answer.status_code, answer.json()["live"]) == (200, "tiny-1")
    assert settled(lambda: recommend(writable)["release"] == "tiny-1")
    moves = Catalogue.of_repo(changing_run / "feature_repo").transitions("pointers")[-2:]
    assert [(each.after, each.who, each.why) for each in moves] == [
        ("tiny-2", "token@testclient", "better"),
        ("tiny-1", "token@testclient", "rolled back from tiny-2 over HTTP"),
    ]


@pytest.mark.parametrize("path", ["/v1/releases/tiny-2/promote", "/v1/releases/rollback"])
@pytest.mark.parametrize(
    ("header", "got"),
    [
        (None, "got none"),
        ("Bearer a-token-of-thirty-two-character", "got a wrong one"),
        (f"Bearer {TOKEN}x", "got a wrong one"),
        ("Bearer tökenstöken", "got a wrong one"),
        (f"Basic {TOKEN}", "got none"),
    ],
)
def test_write_routes_refuse_whoever_lacks_the_token(
    writable: TestClient, path: str, header: str | None, got: str
) -> None:
    headers = {"authorization": header.encode()} if header else {}
    response = writable.post(path, json={"why": "x"}, headers=headers)
    status, code, message = error(response)
    assert (status, code) == (401, "unauthorized")
    assert got in message
    assert response.headers["www-authenticate"] == "Bearer"
    assert recommend(writable)["release"] == "tiny-1"


def test_write_routes_are_closed_on_a_server_without_a_token(client: TestClient) -> None:
    status, code, _ = error(client.post("/v1/releases/tiny-2/promote", json={}, headers=BEARER))
    assert (status, code) == (403, "writes_closed")


def test_promote_route_refuses_what_must_not_go_live(writable: TestClient, changing_run: Path) -> None:
    refused = writable.post("/v1/releases/none/promote", json={}, headers=BEARER)
    assert error(refused)[:2] == (404, "unknown_release")
    status, code, message = error(
        writable.post("/v1/releases/tiny-2/promote", json={"expected_live": "tiny-9"}, headers=BEARER)
    )
    assert (status, code) == (409, "release_refused")
    assert "tiny-9" in message
    break_release(changing_run, "tiny-2")
    status, code, message = error(writable.post("/v1/releases/tiny-2/promote", json={}, headers=BEARER))
    assert (status, code) == (409, "release_refused")
    assert "pins.faiss must have sha256" in message
    assert error(writable.post("/v1/releases/rollback", json={}, headers=BEARER))[:2] == (409, "release_refused")
    assert writable.get("/v1/releases").json()["live"] == "tiny-1"


def test_write_routes_of_a_server_of_one_folder_say_that_there_is_no_catalogue(tiny_run: Path) -> None:
    directory = tiny_run / "releases" / "tiny-1"
    settings = Settings(run=tiny_run, release_dir=directory, as_of=NOW, threads=1, token=TOKEN)  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        refused = client.post("/v1/releases/rollback", json={}, headers=BEARER)
    assert error(refused)[:2] == (409, "no_catalogue")


def test_token_comes_from_a_file_and_must_be_long(tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert create_app(Settings(run=tiny_run, token_file=file)).state.token == TOKEN
    with pytest.raises(ValueError, match=r"at least 16 characters \(got 5\)"):
        create_app(Settings(run=tiny_run, token="short"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="token_file must be readable"):
        create_app(Settings(run=tiny_run, token_file=tmp_path / "none"))


def test_token_shows_neither_in_settings_nor_in_errors(writable: TestClient) -> None:
    assert TOKEN not in repr(writable.app.state.settings)  # type: ignore[attr-defined]
    wrong = writable.post("/v1/releases/rollback", json={}, headers={"authorization": "Bearer some-wrong-token"})
    assert "some-wrong-token" not in wrong.text
