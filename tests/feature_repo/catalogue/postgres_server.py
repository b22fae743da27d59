"""A PostgreSQL server of tests, where its programs are installed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

_START_TIMEOUT_S = 30.0
_SETTINGS = ("listen_addresses=", "fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=40")


def why_absent() -> str | None:
    """Reason for which no server can be started here; None where one can."""
    if _program("initdb") is None or _program("postgres") is None:
        return "initdb and postgres must be on the path or in /usr/lib/postgresql (found neither)"
    if os.geteuid() == 0 and _account() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextlib.contextmanager
def running() -> Iterator[URL]:
    """A server that listens on a socket in a folder of its own; gives a URL of it, and ends it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hw-pg-"))
    account = _account() if os.geteuid() == 0 else None
    if account is not None:
        shutil.chown(folder, account)
    data = str(folder / "data")
    options = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        command = [str(_program("initdb")), "-D", data, "-U", "headwater", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(command, user=account, cwd=folder, check=True, capture_output=True)
        command = [str(_program("postgres")), "-D", data, "-k", str(folder), *options]
        with subprocess.Popen(command, user=account, cwd=folder, stderr=subprocess.DEVNULL) as server:
            try:
                query = {"host": str(folder)}
                url = URL.create("postgresql+psycopg", username="headwater", database="postgres", query=query)
                _wait_until_it_answers(url)
                yield url
            finally:
                # At once: nothing in the folder is kept.
                server.send_signal(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path | None:
    found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
    return None if found is None else Path(found)


def _account() -> str | None:
    return next((each.pw_name for each in pwd.getpwall() if each.pw_name == "postgres"), None)


def _wait_until_it_answers(url: URL) -> None:
    """The socket is there a moment before the server takes connections."""
    engine = create_engine(url, poolclass=NullPool)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            engine.connect().close()
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
