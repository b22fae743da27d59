"""TLS and passwords on the way to Redis: by the connection string alone, and in no log line."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.feature_repo.stores.servers import HOST, running
from tests.serving.tiny_run import NOW, build

PASSWORD = "only-for-the-store-2f9c"
ASK = {"user_id": 1, "surface": "0"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate (none on PATH)")
    folder = tmp_path_factory.mktemp("tls")
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={HOST}"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = [openssl, *words.split(), "-addext", f"subjectAltName=IP:{HOST}", *files]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@contextlib.contextmanager
def encrypted(port: int, certificate: Path) -> Iterator[int]:
    """A port that takes TLS alone and passes what it decrypts on to a store that does not know it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=accept, args=(listener, context, port), daemon=True).start()
        yield int(listener.getsockname()[1])
        # Closing alone would leave the thread in its accept.
        listener.shutdown(socket.SHUT_RDWR)


def accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            plain, _ = listener.accept()
            with contextlib.suppress(OSError):
                both = (context.wrap_socket(plain, server_side=True), socket.create_connection((HOST, port)))
                for source, target in (both, both[::-1]):
                    threading.Thread(target=pump, args=(source, target), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_features_are_read_over_tls_with_a_password_that_no_line_shows(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        running(tmp_path / "store", "--requirepass", PASSWORD) as port,
        encrypted(port, certificate) as secure,
    ):
        trusted = f"ssl=true,ssl_ca_certs={certificate / 'cert.pem'}"
        monkeypatch.setenv("REDIS_CONNECTION", f"{HOST}:{secure},{trusted},password={PASSWORD}")
        run = build(tmp_path / "run", "redis")
        settings = Settings(run=run, as_of=NOW, threads=1, token="the token of this test")  # type: ignore[arg-type]
        with TestClient(create_app(settings)) as client:
            assert client.post("/v1/recommend", json=ASK).json()["degraded"] is None
            wrong = client.post("/v1/releases/rollback", json={}, headers={"authorization": "Bearer guessed-token"})
            assert wrong.status_code == 401
    assert caplog.text
    for secret in (PASSWORD, "the token of this test", "guessed-token"):
        assert secret not in caplog.text
        assert secret not in wrong.text


def test_error_of_the_store_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/readyz` repeats what the store said."""
    with running(tmp_path / "store", "--requirepass", PASSWORD) as port:
        monkeypatch.setenv("REDIS_CONNECTION", f"{HOST}:{port},password={PASSWORD}")
        run = build(tmp_path / "run", "redis")
        client = TestClient(create_app(Settings(run=run, as_of=NOW, threads=1)))
        with client:
            assert client.get("/readyz").status_code == 200
            with redis.Redis(HOST, port, password=PASSWORD) as store:
                store.config_set("requirepass", "another")
                store.execute_command("CLIENT", "KILL", "TYPE", "normal")
            answer = client.get("/readyz")
    assert answer.status_code == 503
    assert PASSWORD not in answer.text
