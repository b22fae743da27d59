"""Processes that are killed anywhere in a refresh: the same command goes on, and the end is the same to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from feature_repo.contract import ENTITIES, embedding_view
from feature_repo.layout import open_store
from tests.integration.runs import ROOT, assert_equal_results, results
from tests.life.shop import UNTIL, Shop
from trainers.life.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FOLDERS = ("event_log", "feature_repo/data/offline", "upstream", "features/totals_user", "features/sequence_user")

# Every rename makes something visible and every connection is a transaction of catalogue, registry or online store:
# the process ends right before one of them, as by a power cut.
_COMMAND = """
import os, signal, sys
from trainers.cli import main
left = int(sys.argv.pop(1))
def count(event, arguments):
    global left
    if event in ("os.rename", "sqlite3.connect"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
main()
"""


def refreshed(home: Home, survived: int) -> int:
    """Exit code of a refresh of one day that is killed before so many renames and connections and one."""
    command = [
        sys.executable,
        "-c",
        _COMMAND,
        str(survived),
        "refresh",
        "--run",
        str(home.run),
        "--as-of",
        "2024-01-09",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--quiet"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def online(home: Home) -> dict[str, list[object]]:
    """Vectors that servers read."""
    store, found = open_store(home.repo_dir), {}
    for model in ("ctr", "cvr"):
        for entity in ENTITIES:
            view = embedding_view(entity, model, 1)
            rows = [{f"{entity}_id": key} for key in range(60)]
            found[view] = store.get_online_features([f"{view}:embedding"], rows).to_dict()["embedding"]
    return found


def test_refresh_killed_at_random_points_ends_like_an_uninterrupted_one(
    copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    straight, shop = copied(tmp_path / "straight")
    shop.show(8)
    assert refreshed(straight, 1_000_000) == 0
    killed, shop = copied(tmp_path / "killed")
    shop.show(8)
    draw, num_kills = random.Random(5), 0
    while refreshed(killed, draw.randrange(10, 50)) != 0:
        num_kills += 1
    assert num_kills >= 4
    assert_equal_results(results(straight.run, *FOLDERS), results(killed.run, *FOLDERS))
    assert online(straight) == online(killed)
    for key in ("ctr_v1", "cvr_v1"):
        ours, theirs = (
            [(day.cutoff, day.state, day.gates) for day in home.catalogue.days(key)] for home in (straight, killed)
        )
        assert ours == theirs
        assert ours[-1][:2] == (UNTIL + timedelta(days=1), "visible")
