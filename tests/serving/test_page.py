"""The page at `/`: what it says, that nothing a request holds becomes markup, and that a browser can show it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.page import value_text
from serving.settings import Settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "headless_shell")
START_PATIENCE_S, BROWSER_PATIENCE_S = 60.0, 120.0


def shown(client: TestClient, status: int = 200, **query: object) -> str:
    response = client.get("/", params={name: str(value) for name, value in query.items()})
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("text/html")
    return response.text


def test_page_shows_the_live_release_before_anyone_is_asked_for(client: TestClient) -> None:
    text = shown(client)
    for said in ("tiny-1", "ctr_v1", "2026-01-10", "Give a user"):
        assert said in text


def test_page_shows_recommendations_with_titles_scores_and_reasons(client: TestClient) -> None:
    """Pin 102 is second in retrieval and first by pctr, sigmoid(3); its price is 2."""
    text = shown(client, user=1, surface=0)
    order = [text.index(f'<span class="title">Pin {pin}</span>') for pin in (102, 105, 103, 101, 104)]
    assert order == sorted(order)
    for said in ("95.26", "85.81", "retrieved as number 2 of 6, score 0.800", "pin_attributes: price", "1 h old"):
        assert said in text


def test_page_shows_pins_like_a_pin(client: TestClient) -> None:
    text = shown(client, pin=101)
    assert "Like Pin 101" in text
    assert text.index("Pin 102</a>") < text.index("Pin 105</a>")
    assert "holds no vector" in shown(client, pin=777)


def test_page_says_that_a_user_is_unknown(client: TestClient) -> None:
    text = shown(client, user=999, surface=1)
    assert "No view knows this user" in text
    assert "popular on this surface" in text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"user": "someone"}, "user must be a number"),
        ({"user": 1, "surface": "moon"}, "surface must be known"),
        ({"pin": 2**63}, "pin must be a number"),
    ],
)
def test_page_names_what_cannot_be_asked(client: TestClient, query: dict[str, object], said: str) -> None:
    assert said in shown(client, status=422, **query)


def test_page_shows_what_was_asked_as_text(client: TestClient) -> None:
    text = shown(client, status=422, user='"><script>alert(1)</script>')
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_page_allows_nothing_from_elsewhere(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.123456, "0.1235"),
        (float("nan"), "–"),
        ([], "empty"),
        ([1, 2, 3, 4, 5, 6], "1, 2, 3, 4, 5, … (6)"),
        ([0.25] * 16, "16 numbers, norm 1.000"),
        ("rye", "rye"),
        (7, "7"),
    ],
)
def test_feature_values_read_as_people_write_them(value: object, text: str) -> None:
    assert value_text(value) == text


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[str]:
    """A server on a port of its own; gives its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        until = time.monotonic() + START_PATIENCE_S
        while not server.started and time.monotonic() < until:
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    with listening(settings) as found:
        yield found


def browse(address: str, profile: Path, *options: str) -> str:
    """What headless Chromium writes about a page."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"a browser is needed (none of {', '.join(BROWSERS)} on PATH)")
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", "--hide-scrollbars", "--virtual-time-budget=2000", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BROWSER_PATIENCE_S, check=True)
    return done.stdout


def test_browser_reads_the_page_as_it_was_sent(address: str, tmp_path: Path) -> None:
    found = browse(f"{address}/?user=1&surface=0&pin=101", tmp_path / "profile", "--dump-dom")
    assert '<span class="title">Pin 102</span>' in found
    assert "Like Pin 101" in found


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desktop"])
def test_browser_draws_the_page(address: str, tmp_path: Path, width: int) -> None:
    """A drawn page compresses to much more than an empty one."""
    picture = tmp_path / "page.png"
    size = f"--window-size={width},1800"
    browse(f"{address}/?user=1&surface=0", tmp_path / "profile", f"--screenshot={picture}", size)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == width
    assert len(content) > 20_000
