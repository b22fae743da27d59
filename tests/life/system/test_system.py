"""Commands on a real run with kills: no consumer reads two spaces, no release lacks a part, nothing in use is deleted.

One test kills each command before each of its moments: promises hold, and repeated it ends like an uninterrupted one. A
kill leaves what lies on the disk at that moment, so one uninterrupted command gives the remains of all kills: copies of
the run before the moments, with the file that was being written torn. The other one does random sequences.

By default a few moments of each command and one short sequence. `HEADWATER_EVERY_MOMENT=1` takes every moment, a number
n every n-th; `HEADWATER_SECONDS=3600` does sequences for an hour, from `HEADWATER_SEED=…` on; a failure prints its
sequence and seed. `HEADWATER_TEST_LOG=FILE` keeps what was done and how often it was checked.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.runs import assert_equal_results, results
from tests.life.system.consumer import Consumer
from tests.life.system.moments import tear
from tests.life.system.plain import ENTITIES, PlainRun
from tests.life.system.promises import Truth, broken, unfinished
from tests.life.system.sequences import KINDS, Sequence
from tests.life.system.shop import PUSHED
from tests.life.system.stand_in import DAMAGE
from tests.life.system.workshop import Done, Workshop

EVERY = int(os.environ.get("HEADWATER_EVERY_MOMENT") or 0)
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
    refused: tuple[str, ...] = ()
    """A refresh before it whose day the gates refuse."""
    appends: bool = False
    """Whether rows that are given once more lie in one more file, and say the same."""


LIVE, CANDIDATE, ROWS, PARTS = "LIVE", "CANDIDATE", "ROWS", "PARTS"
"""Stand for the live release, the candidate, a file of users, known ones and a new one, and parts of a release."""
PROMOTE = ("release", "promote", CANDIDATE, "--why", "v2")
RETIRE = ("release", "retire", LIVE, "ctr_v1", "--why", "old")
PRUNE = ("release", "prune", "--why", "old")
REFRESH = ("refresh", "--as-of", "2024-01-08", "--quiet")
PUSH = ("push", "--entity", "user", "--file", ROWS, "--version", "ctr_v1", "-q")
BY_FEAST = ("push by feast", "user", "ctr_v1", "3", "7")
BACKFILL = ("backfill", "--version", "ctr_v1", "--from", "2024-01-02", "--to", "2024-01-02", "-q")
VERSION = ("version", "create", "--model", "ctr")
CASES = {
    "push": Case(PUSH, 15),
    "push by feast": Case(BY_FEAST, 2, appends=True),
    "refresh": Case(REFRESH, 100),
    "refresh after the older version": Case(REFRESH, 35, (PROMOTE, RETIRE, PRUNE)),
    "refresh after a push": Case(REFRESH, 80, (PUSH,)),
    "catch up": Case(("refresh", "--as-of", "2024-01-10", "--quiet"), 350),
    "refresh as new version": Case((*REFRESH, "--as-new-version"), 120, refused=REFRESH),
    "version create": Case((*VERSION, "--from-scratch", "-q"), 100),
    "upgrade": Case((*VERSION, "--compatible-with", "ctr_v2", "-q"), 100),
    "backfill": Case(BACKFILL, 25),
    "feed": Case(("version", "feed", "--version", "ctr_v1", "--through", "ctr_v2"), 3, (PROMOTE,)),
    "release create": Case(("release", "create", PARTS, "--why", "anew"), 5),
    "release create --version": Case(("release", "create", "--version", "ctr_v2", "--why", "anew", "-q"), 16),
    "promote": Case(PROMOTE, 3),
    "rollback": Case(("release", "rollback", "--why", "worse"), 3, (PROMOTE,)),
    "shadow": Case(("release", "shadow", CANDIDATE, "--share", "0.5", "--why", "try"), 3),
    "retire": Case(RETIRE, 3, (PROMOTE,)),
    "prune": Case(PRUNE, 12, (PROMOTE, RETIRE)),
}
"""Every operation; of those that are done once, one that takes up what another one left."""
PINNED = ("push", "refresh", "train a release", "promote")
"""What the first sequence begins with, each killed once."""


def named(arguments: tuple[str, ...], run: Path) -> tuple[str, ...]:
    """The arguments with the names of releases put in."""
    releases = PlainRun(run).seen.releases.values()
    first = {LIVE: "ctr_v1", CANDIDATE: "ctr_v2"}
    names = {word: next(each.id for each in releases if key in each.versions) for word, key in first.items()}
    names |= {ROWS: str(run.parent / "rows.jsonl"), PARTS: str(run.parent / "parts")}
    return tuple(names.get(argument, argument) for argument in arguments)


def do(workshop: Workshop, run: Path, arguments: tuple[str, ...], **asked: Any) -> Done:
    """Do a case's command, or what another project does."""
    if arguments[0] in BY_FEAST:
        _, entity, key, *ids = arguments
        given = {"entity": entity, "key": key, "ids": [int(each) for each in ids], "seconds": 60}
        return workshop.called(run, "push_by_feast", given, **asked)
    return workshop.command(run, *arguments, **asked)


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


def assert_same_end(one: Path, other: Path, *, appends: bool = False) -> None:
    """Two runs hold the same, to the last bit."""
    ours, theirs = ends(one), ends(other)
    for name in ours:
        if not (appends and name == "files"):
            assert ours[name] == theirs[name], name
    if appends:
        assert rows_offline(one) == rows_offline(other)
    else:
        assert_equal_results(results(one, *FOLDERS), results(other, *FOLDERS))


def rows_offline(run: Path) -> dict[str, dict[tuple[int, datetime], set[tuple[float, ...]]]]:
    """Vectors of each version by entity and moment, however often they lie there."""
    plain = PlainRun(run)
    return {
        f"{entity} {key}": {
            row: {tuple(vector.tolist()) for vector in vectors}
            for row, vectors in plain.offline_rows(entity, key).items()
        }
        for entity in ENTITIES
        for key in plain.seen.versions
    }


def prepare(workshop: Workshop, run: Path, case: Case) -> None:
    """Everything that a case needs, and what is done before it."""
    rows = [{"user_id": user, "group": "kind 1"} for user in (3, 7, PUSHED["user"][0])]
    (run.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if PARTS in case.arguments:
        workshop.call(run, "write_parts", folder=run.parent / "parts", key="ctr_v1")
    for arguments in case.before:
        assert do(workshop, run, named(arguments, run)).code == 0
    if case.refused:
        refused = do(workshop, run, case.refused, environment={DAMAGE: "1"})
        assert (refused.code, "--as-new-version" in refused.err) == (1, True), refused.err


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", list(CASES))
def test_command_killed_anywhere_ends_like_an_uninterrupted_one(
    workshop: Workshop, run: Path, tmp_path: Path, counts: Counter[str], name: str
) -> None:
    case, truth = CASES[name], Truth(run)
    prepare(workshop, run, case)
    arguments = named(case.arguments, run)
    consumer = Consumer(run, truth)
    copies, every = tmp_path / "copies", EVERY or case.every
    copies.mkdir()
    done = do(workshop, run, arguments, copies=str(copies), every=every, offset=every // 2)
    assert done.code == 0, done.err
    assert broken(run, truth) == []
    assert unfinished(run) == []
    assert consumer.broken() == []
    consumer.stop()
    left = sorted(copies.iterdir())
    counts.update({f"{name}, killed": len(left), "commands": 1 + len(left), "kills": len(left)})
    counts.update({"checks of the run": 1 + 2 * len(left), "checks of the server": 1})
    assert len(left) >= 2
    for copy in left:
        number, kind, subject = done.moments[int(copy.name) - 1]
        at = f"killed at {number}: {kind} {subject}"
        tear((number, kind, subject.replace(str(run), str(copy))))
        assert broken(copy, truth) == [], at
        again = do(workshop, copy, arguments)
        assert again.code == 0, f"{at}: {again.err}"
        assert broken(copy, truth) == [], at
        assert_same_end(run, copy, appends=case.appends)
        shutil.rmtree(copy)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
def test_random_sequences_of_commands_keep_every_promise(
    workshop: Workshop, two_versions: Path, counts: Counter[str]
) -> None:
    seed, until = SEED, time.monotonic() + SECONDS
    while seed == SEED or time.monotonic() < until:
        sequence = Sequence(workshop, two_versions, seed, counts)
        for kind in PINNED if seed == SEED else ():
            sequence.step(kind)
        for _ in range(STEPS):
            sequence.step()
        sequence.close()
        seed += 1
    assert counts["kills"] >= len(PINNED)
    if seed - SEED > 50:
        assert {kind for kind in KINDS if not counts[f"step {kind}"]} == set()
