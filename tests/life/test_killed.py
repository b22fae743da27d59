"""Processes that are killed anywhere in a refresh: the same command goes on, and the end is the same to the bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo.contract import ENTITIES, embedding_view
from feature_repo.layout import open_store
from tests.integration.runs import ROOT, assert_equal_results, results
from tests.life.shop import UNTIL, Shop
from trainers.life.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FOLDERS = ("event_log", "feature_repo/data/offline", "upstream", "features/totals_user", "features/sequence_user")

# Python takes longer to start than a refresh takes: every process is forked from one that has imported everything.
# Each rename makes something visible and each connection is a transaction of catalogue, registry or online store: a
# process ends right before one of them, as by a power cut.
_FORKS = """
import json, os, signal, sys
from feast import FeatureStore
import trainers.console, trainers.life.backfill, trainers.life.new_version, trainers.life.refresh
from trainers.cli import app

FeatureStore._precompute_affected_services = lambda *_: None

def work(survived, arguments):
    made = 0
    def count(event, _):
        nonlocal made
        if event in ("os.rename", "sqlite3.connect"):
            made += 1
            if made > survived:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    try:
        app(arguments)
    except SystemExit as end:
        return end.code or 0, made

for line in sys.stdin:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(2, 1)
        code, made = work(*json.loads(line))
        os.write(writing, json.dumps([code, made]).encode())
        os._exit(0)
    os.close(writing)
    print(os.read(reading, 100).decode() or "null", flush=True)
    os.close(reading)
    os.wait()
"""

Command = Callable[..., int | None]
"""Renames and connections that a command made; none where it was killed because it went to make one too many."""


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _FORKS], env=environment, **arguments) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def run(*arguments: str | Path, survived: int = 1_000_000) -> int | None:
            requests.write(json.dumps([survived, [*map(str, arguments), "--quiet"]]) + "\n")
            requests.flush()
            answer = json.loads(answers.readline())
            assert answer is None or answer[0] == 0
            return None if answer is None else int(answer[1])

        yield run
        requests.close()


def assert_survives_kills(
    command: Command, straight: list[str | Path], killed: list[str | Path], *, num_kills: int
) -> None:
    """Do one command at once and another, which must come to the same, after some kills, early ones and late ones."""
    total = command(*straight)
    assert total is not None
    points = iter([*sorted(random.Random(5).sample(range(3, total), num_kills)), 10 * total])
    survived = 0
    while command(*killed, survived=next(points)) is None:
        survived += 1
    assert survived >= 2


def online(home: Home, *keys: str) -> dict[str, list[object]]:
    """Vectors that servers read."""
    store, found = open_store(home.repo_dir), {}
    for key in keys:
        model, number = key.split("_v")
        for entity in ENTITIES:
            view = embedding_view(entity, model, int(number))
            rows = [{f"{entity}_id": key} for key in range(60)]
            found[view] = store.get_online_features([f"{view}:embedding"], rows).to_dict()["embedding"]
    return found


def assert_same_end(straight: Home, killed: Home, *keys: str) -> None:
    """Files, online rows and the catalogue of a run that was killed are those of one that was not."""
    assert_equal_results(results(straight.run, *FOLDERS), results(killed.run, *FOLDERS))
    assert online(straight, *keys) == online(killed, *keys)
    for key in keys:
        ours, theirs = (home.catalogue.version(key) for home in (straight, killed))
        assert (ours.state, ours.space_id, ours.data_until, ours.artifacts) == (
            theirs.state,
            theirs.space_id,
            theirs.data_until,
            theirs.artifacts,
        )
        days = [
            [(day.cutoff, day.state, day.gates, day.snapshot_sha256.keys()) for day in home.catalogue.days(key)]
            for home in (straight, killed)
        ]
        assert days[0] == days[1]


def test_refresh_killed_at_random_points_ends_like_an_uninterrupted_one(
    command: Command, copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    (straight, one), (killed, other) = copied(tmp_path / "straight"), copied(tmp_path / "killed")
    for shop in (one, other):
        shop.show(8)
    refresh: list[str | Path] = ["refresh", "--as-of", "2024-01-09", "--run"]
    assert_survives_kills(command, [*refresh, straight.run], [*refresh, killed.run], num_kills=6)
    assert_same_end(straight, killed, "ctr_v1", "cvr_v1")
    newest = killed.newest_day("ctr_v1")
    assert (newest.cutoff, newest.state) == (UNTIL + timedelta(days=1), "visible")
    assert not list(killed.run.glob("refreshing/*"))
    assert not list(killed.run.glob("upstream/**/.*"))


def test_new_version_killed_at_random_points_ends_like_an_uninterrupted_one(
    command: Command, copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    straight, killed = (copied(tmp_path / name)[0] for name in ("straight", "killed"))
    create: list[str | Path] = ["version", "create", "--model", "cvr", "--compatible-with", "cvr_v1", "--run"]
    assert_survives_kills(command, [*create, straight.run], [*create, killed.run], num_kills=3)
    assert_same_end(straight, killed, "cvr_v1", "cvr_v2")
    assert sorted(path.name for path in killed.folder("cvr_v2").iterdir()) == sorted(
        path.name for path in straight.folder("cvr_v2").iterdir()
    )


def test_backfill_killed_at_random_points_ends_like_an_uninterrupted_one(
    command: Command, copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    straight, killed = (copied(tmp_path / name)[0] for name in ("straight", "killed"))
    backfill: list[str | Path] = ["backfill", "--version", "ctr_v1", "--from", "2024-01-02", "--to", "2024-01-02"]
    assert_survives_kills(command, [*backfill, "--run", straight.run], [*backfill, "--run", killed.run], num_kills=3)
    assert_same_end(straight, killed, "ctr_v1")
