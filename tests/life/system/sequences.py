"""Random sequences of commands on a real run, killed at any moment, taken up or left lying, and done at once by two.

After every step, and every kill, the run keeps its promises and the server answers from one space; every command that
came to its end did to the catalogue what the model does, or refused what the model refuses.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_repo.versions import CatalogueError
from tests.life.system import release_commands, version_commands
from tests.life.system.commands import Command
from tests.life.system.consumer import Consumer
from tests.life.system.foretold import Foretold
from tests.life.system.plain import IN_USE
from tests.life.system.promises import Truth, broken, damaged_artifacts
from tests.life.system.shop import DELAY
from tests.life.system.situation import Situation
from tests.life.system.stand_in import DAMAGE
from tests.life.system.two_operators import TOLD, serial_differences
from tests.life.system.workshop import Done, Workshop

Kill = tuple[int, bool] | None
"""Moment at which the process ends, and whether a file is then half written."""
COMMANDS: dict[str, tuple[int, Callable[[Situation], Iterable[Command]]]] = {
    "refresh": (5, version_commands.refresh),
    "catch up": (1, version_commands.catch_up),
    "refused refresh": (2, version_commands.refused_refresh),
    "create a version": (2, version_commands.create_version),
    "backfill": (1, version_commands.backfill),
    "push": (4, version_commands.push),
    "push by feast": (1, version_commands.push_by_feast),
    "feed": (1, version_commands.feed),
    "replace the live version": (3, release_commands.replace_the_live_version),
    "create a release": (1, release_commands.create_release),
    "train a release": (1, release_commands.train_release),
    "promote": (2, release_commands.promote),
    "rollback": (1, release_commands.rollback),
    "shadow": (1, release_commands.shadow),
    "retire": (1, release_commands.retire),
    "prune": (2, release_commands.prune),
    "give up and delete": (3, release_commands.give_up_and_delete),
}
"""What may be done next, and how often."""
OTHERS = {"a team moves": 1, "two at once": 3, "take up": 2, "repeat": 1}
"""What else may happen, and how often."""
KINDS = {**{name: often for name, (often, _) in COMMANDS.items()}, **OTHERS}
AT_ONCE = ("promote", "rollback", "retire", "prune", "refresh", "create a release", "push")
AFTER_KILL = ("repeat", "repeat", "repeat", "kill again", "leave")
MOMENTS = {
    "push": 40,
    "push by feast": 8,
    "refresh": 200,
    "version create": 220,
    "backfill": 60,
    "release create": 40,
    "release prune": 60,
}
"""About how many moments a command has."""
FEW_MOMENTS = 12
"""The same of every other one."""


class Sequence:
    """One run, one server of it, and what happens to them.

    Args:
        base: Run that the sequence begins with a copy of.
        seed: Of every choice.
        counts: Where what was done is counted.
    """

    def __init__(self, workshop: Workshop, base: Path, seed: int, counts: Counter[str]) -> None:
        self.workshop, self.counts, self.seed = workshop, counts, seed
        self.now = Situation(workshop, Path(tempfile.mkdtemp(prefix="hw-system-")), random.Random(seed))
        self.random, self.run = self.now.random, self.now.run
        shutil.copytree(base, self.run)
        self.truth = Truth(self.run)
        self.consumer = Consumer(self.run, self.truth)
        self.steps: list[str] = []
        self.left: list[Command] = []
        self.last: Command | None = None
        self.pushed: dict[tuple[str, str], set[tuple[int, datetime]]] = {}
        self.counts["sequences"] += 1

    def close(self) -> None:
        """End the server and delete the run."""
        self.consumer.stop()
        shutil.rmtree(self.now.folder)

    def step(self, kind: str | None = None) -> None:
        """One thing that may happen; one that is named is killed if it is a command."""
        self.now.who, self.now.why = self.random.choice(["alice", "bob"]), self.random.choice(["old", "slow"])
        (drawn,) = self.random.choices(list(KINDS), list(KINDS.values()))
        chosen = kind or drawn
        self.counts[f"step {chosen}"] += 1
        if chosen in OTHERS:
            {"a team moves": self.team, "two at once": self.two, "take up": self.take_up, "repeat": self.repeat}[
                chosen
            ]()
            return
        for command in COMMANDS[chosen][1](self.now):
            kill = self._some_kill(command)
            self.do(command, kill if kind else self.random.choice([None, kill]), self.random.choice(AFTER_KILL))

    def do(self, command: Command, kill: Kill = None, after_kill: str = "repeat") -> Done | None:
        """Do a command; killed, it is repeated, or left for later.

        Returns:
            How it ended; none where it was left.
        """
        while True:
            before, damaged = Foretold(self.now.plain), set(damaged_artifacts(self.now.plain))
            done = self._once(command, kill)
            self._check(command)
            if command.name.startswith("release"):
                deleted = sorted({*damaged_artifacts(self.now.plain)} - damaged)
                assert deleted == [], self._story(command, deleted)
            if not done.killed:
                self.last = command
                self._note_pushed(command, done)
                self._compare(command, before, done)
                return done
            if after_kill == "leave":
                self.left.append(command)
                return None
            kill = (kill[0] + 3, kill[1]) if kill is not None and after_kill == "kill again" else None
            after_kill = "repeat" if kill is not None and kill[0] > 60 else after_kill

    def two(self) -> None:
        """One operator stands still at a moment, and another one does something meanwhile."""
        found = [next(iter(COMMANDS[self.random.choice(AT_ONCE)][1](self.now)), None) for _ in range(2)]
        slow, fast = found
        if slow is not None and fast is not None:
            self.at_once(slow, fast, moment=self.random.randint(1, 120))

    def at_once(self, slow: Command, fast: Command, moment: int) -> Done:
        """Do a command that stands still at a moment while bob does another one."""
        before = Foretold(self.now.plain)
        undamaged = {DAMAGE: ""}
        meanwhile = self.workshop.request(self.run, fast.arguments, "bob", environment=undamaged)
        asked: dict[str, Any] = {"pause": moment, "meanwhile": meanwhile, "environment": undamaged}
        done = self.workshop.command(self.run, *slow.arguments, who=slow.who, **asked)
        other = f"{done.meanwhile.code} {done.meanwhile.err}" if done.meanwhile is not None else "not begun"
        self._note(f"{slow} -> {done.code}, standing still at moment {moment} for bob: {fast} -> {other}")
        self.counts["two at once"] += 1
        self._check("two at once")
        if done.meanwhile is not None and {slow.name, fast.name} <= TOLD:
            ended = [(slow, done), (fast, done.meanwhile)]
            wrong = serial_differences(before, self.now.plain, ended)
            assert wrong == [], self._story("two at once", wrong)
        return done

    def take_up(self) -> None:
        """Repeat what was left lying, whatever happened since."""
        if self.left:
            command = self.left.pop(0)
            self._once(command, None)
            self._check(command)

    def repeat(self) -> None:
        """Do what was done last once more, as someone does who is not sure of it."""
        if self.last is not None:
            self.counts["repeated"] += 1
            self.do(self.last)

    def team(self) -> None:
        """A team's own feature service begins or ends to read a version."""
        plain, name = self.now.plain, self.random.choice(["team_ads", "team_feed"])
        if name in plain.services:
            self._note(f"{name} is deleted")
            self.workshop.call(self.run, "delete_service", name=name)
        else:
            keys = [key for key in plain.seen.versions if f"user_embedding_{key}" in plain.views]
            key = self.random.choice(sorted(keys))
            self._note(f"{name} reads {key}")
            self.workshop.call(self.run, "declare_service", name=name, key=key)
        self._check("a team's service")

    def _some_kill(self, command: Command) -> tuple[int, bool]:
        most = MOMENTS.get(command.name, FEW_MOMENTS)
        return self.random.randint(1, most), self.random.choice([True, False])

    def _once(self, command: Command, kill: Kill) -> Done:
        asked: dict[str, Any] = {} if kill is None else {"kill": kill[0], "torn": kill[1]}
        asked["environment"] = {DAMAGE: "1" if command.damaged else ""}
        if command.call:
            done = self.workshop.called(self.run, command.call, command.given, **asked)
        else:
            done = self.workshop.command(self.run, *command.arguments, who=command.who, **asked)
        ended = f"killed before moment {kill[0]}{', torn' if kill[1] else ''}" if kill and done.killed else done.code
        self._note(f"{command} -> {ended}{f': {done.err.strip()}' if done.err and done.code else ''}")
        self.counts["kills" if done.killed else "commands"] += 1
        self.counts[f"{command.name}{', killed' if done.killed else ''}"] += 1
        return done

    def _note(self, text: str) -> None:
        self.steps.append(text)
        if log := os.environ.get("HEADWATER_TEST_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{self.seed}: {text}\n")

    def _check(self, what: object) -> None:
        self.counts["checks of the run"] += 1
        wrong = broken(self.run, self.truth)
        assert wrong == [], self._story(what, wrong)
        self.counts["checks of the server"] += 1
        wrong = [*self.consumer.broken(), *self._lost()]
        assert wrong == [], self._story(what, wrong)

    def _lost(self) -> Iterator[str]:
        """Rows of finished pushes that no file has any more."""
        plain = self.now.plain
        for (entity, key), rows in self.pushed.items():
            if plain.seen.versions[key].state in IN_USE and (lost := rows - plain.offline_rows(entity, key).keys()):
                yield f"pushed rows of {entity} {key} are gone: {sorted(lost)[:3]}"

    def _note_pushed(self, command: Command, done: Done) -> None:
        if command.pushes is not None and done.code == 0:
            pushed = self.now.plain.offline_rows(*command.pushes).keys() - self._snapshots(*command.pushes)
            self.pushed.setdefault(command.pushes, set()).update(pushed)

    def _snapshots(self, entity: str, key: str) -> set[tuple[int, datetime]]:
        """Rows that a night's snapshot gave."""
        plain = self.now.plain
        moments = {day["cutoff"] + DELAY for day in plain.days if day["key"] == key}
        return {row for row in plain.offline_rows(entity, key) if row[1] in moments}

    def _compare(self, command: Command, before: Foretold, done: Done) -> None:
        """The command did, or refused, what the model does or refuses."""
        foretold, after, refused = before.anew(), self.now.plain, False
        try:
            command.foretell(foretold, after)
        except CatalogueError:
            refused = True
        if done.code == 1 and command.may_fail:
            assert "stays invisible" in done.err, self._story(command, [done.err])
            foretold = before.anew()
            foretold.refresh(after)
        elif done.code == 2 and not refused and (reasons := _reasons(command, before)) is not None:
            assert any(reason in done.err for reason in reasons), self._story(command, [done.err])
            foretold = before.anew()
        elif refused or done.code != 0:
            assert (done.code == 2) == refused, self._story(command, [f"refused: {refused}", done.err])
            foretold = before.anew()
        foretold.services_alone(after)
        wrong = foretold.differences(after)
        assert wrong == [], self._story(command, [*wrong, done.err])

    def _story(self, what: object, wrong: list[str]) -> str:
        told = "\n".join(self.steps)
        return f"sequence {self.seed}, after\n{told}\nat {what}:\n" + "\n".join(wrong)


def _reasons(command: Command, before: Foretold) -> list[str] | None:
    """What a refusal may say that the model does not know; none where it knows all of them."""
    if command.arguments[:2] == ("version", "create"):
        return [""] if before.states & {"training", "backfilling"} else []
    if command.name == "release create":
        return [name for name, each in before.model.releases.items() if each.state in ("retired", "pruned")]
    return ["a refresh is under way"] if command.name == "push" else None
