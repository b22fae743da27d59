"""Two operators at once: one wins, the other is told by whom, when and why."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from sqlalchemy.engine import URL, make_url

from feature_repo.versions import Catalogue, CatalogueError, WrongStateError
from tests.feature_repo.catalogue.invariants import violations
from tests.feature_repo.catalogue.lives import ALICE, add_candidate, add_live, add_release, release, states, version
from tests.feature_repo.catalogue.seen import look
from tests.imports import ROOT

OPERATOR = """
import json, pathlib, sys, time
from feature_repo.versions import Catalogue, WrongStateError

url, name, folder = sys.argv[1:]
catalogue = Catalogue(url)
pathlib.Path(folder, name).touch()
while not pathlib.Path(folder, "go").exists():
    time.sleep(0.001)
try:
    told = {"revision": catalogue.promote(name, who=name, why=f"{name} is better", expected_live="r-1").revision}
except WrongStateError as error:
    told = {"error": str(error), "by": error.last.who}
print(json.dumps(told))
"""


def text_of(url: URL) -> str:
    return make_url(url).render_as_string(hide_password=False)


def test_two_processes_promote_at_once_and_one_wins(catalogue: Catalogue, url: URL, tmp_path: Path) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    names = ["r-2", "r-3"]
    for name in names:
        add_release(catalogue, name, "ctr_v1")
    commands = [[sys.executable, "-c", OPERATOR, text_of(url), name, str(tmp_path)] for name in names]
    operators = [subprocess.Popen(each, cwd=ROOT, stdout=subprocess.PIPE, text=True) for each in commands]
    while not all((tmp_path / name).exists() or each.poll() for name, each in zip(names, operators, strict=True)):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    told = {name: json.loads(each.communicate()[0]) for name, each in zip(names, operators, strict=True)}

    winner = catalogue.pointers().live
    loser = next(name for name in names if name != winner)
    assert told[winner] == {"revision": 2}
    assert told[loser]["by"] == winner
    assert f"must be r-1 as you saw it (got {winner}): {winner} made it so at 20" in told[loser]["error"]
    assert f"because '{winner} is better'" in told[loser]["error"]
    assert states(catalogue) == {"ctr_v1": "live", "r-1": "superseded", winner: "live", loser: "candidate"}


def test_many_threads_create_one_release_and_all_but_one_are_told(catalogue: Catalogue) -> None:
    add_candidate(catalogue, "ctr_v1")
    barrier = Barrier(6)

    def create(number: int) -> str:
        barrier.wait()
        try:
            record = release("r-1", "ctr_v1", manifest_sha256=f"of {number}")
            return catalogue.create_release(record, who=f"operator {number}", why="mine").manifest_sha256
        except WrongStateError as error:
            return "nobody" if error.last is None else error.last.who

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(create, range(6)))
    winner = catalogue.transitions("release r-1")[0].who.removeprefix("operator ")
    assert sorted(told) == sorted([f"of {winner}", *[f"operator {winner}"] * 5])


def test_many_threads_at_once_leave_a_history_that_fits(catalogue: Catalogue) -> None:
    for name in ("r-1", "r-2", "r-3"):
        add_release(catalogue, name, "ctr_v1")
    barrier = Barrier(4)

    def work(number: int) -> int:
        barrier.wait()
        done = 0
        for turn in range(6):
            why = f"turn {turn}"
            try:
                if (number + turn) % 3:
                    catalogue.promote(f"r-{1 + (number + turn) % 3}", who=f"operator {number}", why=why)
                else:
                    catalogue.rollback(who=f"operator {number}", why=why)
                done += 1
            except CatalogueError:
                continue
        return done

    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(work, range(4)))
    assert catalogue.pointers().revision == done > 0
    assert violations(look(catalogue)) == []


def test_many_threads_make_the_tables_once(url_without_tables: URL) -> None:
    barrier = Barrier(4)

    def open_it(number: int) -> str:
        barrier.wait()
        catalogue = Catalogue(url_without_tables)
        catalogue.create_version(version(f"ctr_v{number}"), **ALICE)
        catalogue.close()
        return f"ctr_v{number}"

    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(open_it, range(1, 5)))
    catalogue = Catalogue(url_without_tables)
    assert [each.key for each in catalogue.versions()] == keys
    catalogue.close()
