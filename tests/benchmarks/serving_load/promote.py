"""Promotions and rollbacks of a server under load: what failed, what was mixed, how soon the processes followed."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_repo.release.files import RELEASES
from feature_repo.versions import Catalogue
from tests.benchmarks.serving_load.client import (
    FAILED,
    MIXED,
    Moments,
    Outcomes,
    Plan,
    Request,
    load_outcomes,
    save_plan,
)
from tests.benchmarks.serving_load.made_run import NOW, SURFACE, Size, make_run
from tests.benchmarks.serving_load.server import ROOT, Held, Server, serving
from tests.feature_repo.stores.servers import free_port

TURN_S = 2.0
"""From one change of the live release to the next."""
SETTLING_S = 3.0
"""Load before the first change."""
SETTLED_AT = 4
"""Changes after which memory is expected to stay as it is: allocators and caches have seen both releases."""
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What the server is asked, and how often it changes meanwhile."""

    size: Size
    rate: float = 200.0
    """Requests a second."""
    changes: int = 20
    """Promotions and rollbacks in turns, with an even number of them."""
    workers: int = 2
    connections: int = 16
    candidates: int = 100
    """Pins that `/v1/recommend` retrieves and `/v1/rank` is given."""
    k: int = 20
    """Pins that `/v1/recommend` answers."""
    users: int = 40
    """Users that ask, each on both routes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One promotion or rollback."""

    release: int
    """Number of the release that it made live."""
    began: float
    """Moment before the transaction, on the monotonic clock."""
    held: tuple[Held, ...]
    """By worker, once all had followed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What came of it."""

    outcomes: Outcomes
    changes: tuple[Change, ...]
    cpu_s: float
    """CPU that the server took for all requests, loading releases among it."""

    @property
    def cpu_ms(self) -> float:
        """The same for one request."""
        return 1000 * self.cpu_s / len(self.outcomes.due)

    @property
    def failed(self) -> int:
        """Requests without an answer of status 200."""
        return self.outcomes.count(FAILED)

    @property
    def mixed(self) -> int:
        """Answers that none of the releases gives alone."""
        return self.outcomes.count(MIXED)

    def first_s(self) -> list[float]:
        """By change: from its transaction's begin to the first answer of the new release."""
        return [min(self._delays(each, self.outcomes.received, each.release), default=0.0) for each in self.changes]

    def last_s(self) -> list[float]:
        """By change: from its transaction's begin to the sending of the last request that the old release answered."""
        return [max(self._delays(each, self.outcomes.sent, 1 - each.release), default=0.0) for each in self.changes]

    def resident_growth_mb(self) -> float:
        """Most that a worker's resident memory grew from the time it had settled to the last change."""
        return max(after - before for before, after in self._settled("resident_mb"))

    def handle_growth(self) -> int:
        """Most that a worker's open files and sockets grew meanwhile."""
        return int(max(after - before for before, after in self._settled("handles")))

    @property
    def peak_mb(self) -> float:
        """Highest resident memory of a worker between two changes."""
        return max(held.resident_mb for change in self.changes for held in change.held)

    def _settled(self, name: str) -> list[tuple[float, float]]:
        """Largest figure of each worker in the first changes, and in as many of the last."""
        count = min(SETTLED_AT, len(self.changes) // 2)
        by_worker = [
            [getattr(held, name) for held in each] for each in zip(*(c.held for c in self.changes), strict=True)
        ]
        return [(max(figures[:count]), max(figures[-count:])) for figures in by_worker]

    def _delays(self, change: Change, moments: Moments, release: int) -> list[float]:
        """From a change to each moment before the next one at which a release answered, or was asked."""
        delays = moments[self.outcomes.outcome == release] - change.began
        found: list[float] = delays[(delays >= 0.0) & (delays < TURN_S)].tolist()
        return found


def measure(folder: Path, load: Load) -> Found:
    """Make a run, learn what each of its releases answers alone, then change between them under load."""
    run = folder / "run"
    releases = make_run(run, load.size)
    answers = [_answers_alone(run, release, load, folder) for release in releases]
    requests = tuple(
        Request(path=path, body=body, answers=tuple(each[number] for each in answers))
        for number, (path, body) in enumerate(_questions(load))
    )
    with serving(run, free_port(), workers=load.workers, settings=_settings(load), log=folder / "server.log") as server:
        seconds = SETTLING_S + TURN_S * load.changes + 1.0
        plan = Plan(port=server.port, rate=load.rate, seconds=seconds, connections=load.connections, requests=requests)
        return _under_load(folder, plan, server, Catalogue.of_repo(run / "feature_repo"), releases, load.changes)


def _under_load(
    folder: Path, plan: Plan, server: Server, catalogue: Catalogue, releases: Sequence[str], count: int
) -> Found:
    save_plan(plan, folder / "plan.json")
    command = [sys.executable, "-m", "tests.benchmarks.serving_load.client"]
    arguments = [str(folder / name) for name in ("plan.json", "outcomes.npz")]
    cpu_s = server.cpu_s()
    client = subprocess.Popen([*command, *arguments], cwd=ROOT)
    try:
        time.sleep(SETTLING_S)
        changes = tuple(_change(turn, server, catalogue, releases) for turn in range(count))
        if client.wait(plan.seconds + _PATIENCE_S) != 0:
            raise RuntimeError(f"the client must end well (got exit code {client.returncode})")
    finally:
        client.kill()
        client.wait()
    return Found(outcomes=load_outcomes(folder / "outcomes.npz"), changes=changes, cpu_s=server.cpu_s() - cpu_s)


def _change(turn: int, server: Server, catalogue: Catalogue, releases: Sequence[str]) -> Change:
    began, release = time.monotonic(), 1 - turn % 2
    if release == 1:
        catalogue.promote(releases[1], who="operator@benchmark", why=f"change {turn}")
    else:
        catalogue.rollback(who="operator@benchmark", why=f"change {turn}")
    time.sleep(max(0.0, began + TURN_S - time.monotonic()))
    return Change(release=release, began=began, held=tuple(server.held().values()))


def _settings(load: Load) -> dict[str, str]:
    return {"HEADWATER_AS_OF": NOW.isoformat(), "HEADWATER_THREADS": "1", "HEADWATER_RETRIEVE": str(load.candidates)}


def _questions(load: Load) -> list[tuple[str, str]]:
    """Paths and bodies of all requests."""
    random, found = np.random.default_rng(1), []
    for user in random.choice(load.size.users, load.users, replace=False).tolist():
        pins = random.choice(load.size.pins, load.candidates, replace=False).tolist()
        found.append(("/v1/recommend", {"user_id": user, "surface": SURFACE, "k": load.k}))
        found.append(("/v1/rank", {"user_id": user, "surface": SURFACE, "pin_ids": pins}))
    return [(path, json.dumps(body)) for path, body in found]


def _answers_alone(run: Path, release: str, load: Load, folder: Path) -> list[str]:
    """What a server of one folder, which follows nothing, answers to all requests."""
    settings = {**_settings(load), "HEADWATER_RELEASE_DIR": str(run / RELEASES / release)}
    with (
        serving(run, free_port(), workers=1, settings=settings, log=folder / f"{release}.log") as server,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection,
    ):
        return [_answer(connection, release, *question) for question in _questions(load)]


def _answer(connection: http.client.HTTPConnection, release: str, path: str, body: str) -> str:
    connection.request("POST", path, body)
    text = connection.getresponse().read().decode()
    if json.loads(text).get("release") != release:
        raise RuntimeError(f"{path} must answer from {release} (got {text[:200]})")
    return text
