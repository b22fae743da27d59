"""Commands on a real run with kills: no consumer reads two spaces, no release lacks a part, nothing in use is deleted.

One test kills each command before each of its moments: promises hold, and repeated it ends like an uninterrupted one. A
kill leaves what lies on the disk at that moment, so one uninterrupted command gives the remains of all kills: copies of
the run before the moments, with the file that was being written torn. The other one does random sequences.

By default a few moments of each command and one short sequence. `HEADWATER_EVERY_MOMENT=1` takes every moment,
`HEADWATER_SECONDS=3600` sequences for an hour, from `HEADWATER_SEED=…` on; a failure prints its sequence and seed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.runs import assert_equal_results, results
from tests.life.system.consumer import Consumer
from tests.life.system.moments import tear
from tests.life.system.plain import ENTITIES, PlainRun
from tests.life.system.promises import Truth, broken, unfinished
from tests.life.system.sequences import Sequence
from tests.life.system.shop import PUSHED
from tests.life.system.workshop import Workshop

EVERY = bool(os.environ.get("HEADWATER_EVERY_MOMENT"))
SECONDS = float(os.environ.get("HEADWATER_SECONDS", "0"))
SEED = int(os.environ.get("HEADWATER_SEED", "4"))
STEPS = int(os.environ.get("HEADWATER_STEPS", "8"))
FOLDERS = ("event_log", "features", "feature_repo/data/offline", "upstream")


@dataclass(frozen=True)
class Case:
    """A command, what must be done before it, and how many moments lie between two kills by default."""

    arguments: tuple[str, ...]
    every: int
    before: tuple[tuple[str, ...], ...] = ()


LIVE, CANDIDATE, ROWS = "LIVE", "CANDIDATE", "ROWS"
"""Stand for the live release, the candidate, and a file of users, known ones and a new one."""
PROMOTE = ("release", "promote", CANDIDATE, "--why", "v2")
PUSH = ("push", "--entity", "user", "--file", ROWS, "--version", "ctr_v1", "-q")
CASES = {
    "push": Case(PUSH, 8),
    "refresh after a push": Case(("refresh", "--as-of", "2024-01-08", "--quiet"), 80, (PUSH,)),
    "refresh": Case(("refresh", "--as-of", "2024-01-08", "--quiet"), 40),
    "version create": Case(("version", "create", "--model", "ctr", "--from-scratch", "-q"), 60),
    "backfill": Case(("backfill", "--version", "ctr_v1", "--from", "2024-01-02", "--to", "2024-01-02", "-q"), 25),
    "promote": Case(PROMOTE, 3),
    "rollback": Case(("release", "rollback", "--why", "worse"), 3, (PROMOTE,)),
    "retire": Case(("release", "retire", LIVE, "ctr_v1", "--why", "old"), 3, (PROMOTE,)),
    "prune": Case(
        ("release", "prune", "--why", "old"), 12, (PROMOTE, ("release", "retire", LIVE, "ctr_v1", "--why", "old"))
    ),
}


def named(arguments: tuple[str, ...], run: Path) -> tuple[str, ...]:
    """The arguments with the names of releases put in."""
    releases = PlainRun(run).seen.releases.values()
    first = {LIVE: "ctr_v1", CANDIDATE: "ctr_v2"}
    names = {word: next(each.id for each in releases if key in each.versions) for word, key in first.items()}
    names[ROWS] = str(run.parent / "rows.jsonl")
    return tuple(names.get(argument, argument) for argument in arguments)


def ends(run: Path) -> dict[str, Any]:
    """Everything that two runs must have in common, without times."""
    plain = PlainRun(run)
    versions, days, releases, pointers, readers, _ = plain.seen.without_times()
    online = {
        f"{entity} {key}": {each: row.vector.tolist() for each, row in plain.online(entity, key).items()}
        for entity in ENTITIES
        for key in versions
    }
    indexes = {
        each.id: {key: np.round(vector, 6).tolist() for key, vector in plain.index(each).items()}
        for each in plain.seen.releases.values()
        if each.state in ("candidate", "live", "superseded")
    }
    return {
        "catalogue": (versions, days, releases, pointers.live, pointers.shadow, readers),
        "online": online,
        "indexes": indexes,
        "files": plain.files(),
        "views": plain.views,
        "services": plain.services,
    }


def assert_same_end(one: Path, other: Path) -> None:
    """Two runs hold the same, to the last bit."""
    ours, theirs = ends(one), ends(other)
    for name in ours:
        assert ours[name] == theirs[name], name
    assert_equal_results(results(one, *FOLDERS), results(other, *FOLDERS))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(CASES))
def test_command_killed_anywhere_ends_like_an_uninterrupted_one(
    workshop: Workshop, run: Path, tmp_path: Path, name: str
) -> None:
    case, truth = CASES[name], Truth(run)
    rows = [{"user_id": user, "group": "kind 1"} for user in (3, 7, PUSHED["user"][0])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for arguments in case.before:
        assert workshop.command(run, *named(arguments, run)).code == 0
    arguments = named(case.arguments, run)
    consumer = Consumer(run, truth)
    copies, every = tmp_path / "copies", 1 if EVERY else case.every
    copies.mkdir()
    done = workshop.command(run, *arguments, copies=str(copies), every=every, offset=every // 2)
    assert done.code == 0, done.err
    assert broken(run, truth) == []
    assert unfinished(run) == []
    assert consumer.broken() == []
    consumer.stop()
    left = sorted(copies.iterdir())
    assert len(left) >= 2
    for copy in left:
        number, kind, subject = done.moments[int(copy.name) - 1]
        at = f"killed at {number}: {kind} {subject}"
        tear((number, kind, subject.replace(str(run), str(copy))))
        assert broken(copy, truth) == [], at
        assert workshop.command(copy, *arguments).code == 0, at
        assert broken(copy, truth) == [], at
        assert_same_end(run, copy)
        shutil.rmtree(copy)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
def test_random_sequences_of_commands_keep_every_promise(workshop: Workshop, two_versions: Path) -> None:
    counts: Counter[str] = Counter()
    seed, until = SEED, time.monotonic() + SECONDS
    while seed == SEED or time.monotonic() < until:
        sequence = Sequence(workshop, two_versions, seed, counts)
        for _ in range(STEPS):
            sequence.step()
        sequence.close()
        seed += 1
    print(dict(counts))
    assert counts["commands"] >= STEPS
