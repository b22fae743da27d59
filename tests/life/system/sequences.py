"""Random sequences of commands on a real run, killed at any moment, taken up or left lying, and done at once by two.

After every step, and every kill, the run keeps its promises and the server answers from one space; every command that
came to its end did to the catalogue what the model does, or refused what the model refuses.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.versions import CatalogueError
from tests.life.system.consumer import Consumer
from tests.life.system.foretold import Foretold, author, refreshed
from tests.life.system.plain import IN_USE, PlainRun
from tests.life.system.promises import Truth, broken
from tests.life.system.shop import DAY, DELAY, FIRST, NUM_DAYS, NUM_PINS, NUM_USERS, PUSHED
from tests.life.system.stand_in import DAMAGE
from tests.life.system.workshop import Done, Workshop

ALIGNED = ("none", "procrustes", "svd_procrustes")
MOST_VERSIONS = 4
LAST_DAY = (FIRST + timedelta(days=NUM_DAYS)).date()

Foretell = Callable[[Foretold, PlainRun], None]
Kill = tuple[int, bool] | None
"""Moment at which the process ends, and whether a file is then half written."""
KINDS = {
    "refresh": 5,
    "refused_refresh": 2,
    "create_version": 2,
    "replace_the_live_version": 3,
    "promote": 2,
    "rollback": 1,
    "shadow": 1,
    "create_release": 1,
    "give_up_and_delete": 3,
    "retire": 1,
    "prune": 2,
    "backfill": 1,
    "push": 4,
    "feed": 1,
    "team": 1,
    "two_at_once": 3,
    "take_up": 2,
}
"""What may happen next, and how often."""
AFTER_KILL = ("repeat", "repeat", "repeat", "kill again", "leave")
MOMENTS = {"push": 40, "refresh": 200, "version create": 220, "backfill": 60, "release prune": 60}
"""About how many moments a command has."""
FEW_MOMENTS = 12
"""The same of every other one."""


@dataclass(frozen=True)
class Command:
    """A command and what the model says of it."""

    arguments: tuple[str, ...]
    foretell: Foretell
    who: str = "alice"
    damaged: bool = False
    may_fail: bool = False
    """Whether the gates may end it with code 1."""

    @property
    def name(self) -> str:
        """The command without its arguments."""
        return " ".join(self.arguments[: 1 if self.arguments[0] in ("refresh", "backfill", "push") else 2])

    def __str__(self) -> str:
        return f"{self.who}: headwater {' '.join(self.arguments)}{' (damaged)' if self.damaged else ''}"


class Sequence:
    """One run, one server of it, and what happens to them.

    Args:
        base: Run that the sequence begins with a copy of.
        seed: Of every choice.
        counts: Where what was done is counted.
    """

    def __init__(self, workshop: Workshop, base: Path, seed: int, counts: Counter[str]) -> None:
        self.workshop, self.random, self.counts, self.seed = workshop, random.Random(seed), counts, seed
        self.folder = Path(tempfile.mkdtemp(prefix="hw-system-"))
        self.run = self.folder / "run"
        shutil.copytree(base, self.run)
        self.truth = Truth(self.run)
        self.consumer = Consumer(self.run, self.truth)
        self.who, self.why = "alice", "old"
        self.steps: list[str] = []
        self.left: list[Command] = []
        self.numbers = itertools.count()
        self.pushed: dict[tuple[str, str], set[tuple[int, datetime]]] = {}
        self.counts["sequences"] += 1

    def close(self) -> None:
        """End the server and delete the run."""
        self.consumer.stop()
        shutil.rmtree(self.folder)

    @property
    def plain(self) -> PlainRun:
        return PlainRun(self.run)

    def do(self, command: Command, kill: Kill = None, after_kill: str = "repeat") -> Done | None:
        """Do a command; killed, it is repeated, or left for later.

        Returns:
            How it ended; none where it was left.
        """
        while True:
            before = Foretold(self.plain)
            done = self._once(command, kill)
            self._check(command)
            if not done.killed:
                self._note_pushed(command, done)
                self._compare(command, before, done)
                return done
            if after_kill == "leave":
                self.left.append(command)
                return None
            kill = (kill[0] + 3, kill[1]) if kill is not None and after_kill == "kill again" else None
            after_kill = "repeat" if kill is not None and kill[0] > 60 else after_kill

    def _once(self, command: Command, kill: Kill) -> Done:
        asked: dict[str, Any] = {} if kill is None else {"kill": kill[0], "torn": kill[1]}
        environment = {DAMAGE: "1" if command.damaged else ""}
        done = self.workshop.command(self.run, *command.arguments, who=command.who, environment=environment, **asked)
        ended = f"killed before moment {kill[0]}{', torn' if kill[1] else ''}" if kill and done.killed else done.code
        self._note(f"{command} -> {ended}{f': {done.err.strip()}' if done.err and done.code else ''}")
        self.counts["kills" if done.killed else "commands"] += 1
        self.counts[command.name] += 1
        return done

    def _note(self, text: str) -> None:
        self.steps.append(text)
        if log := os.environ.get("HEADWATER_TEST_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{self.seed}: {text}\n")

    def _check(self, what: object) -> None:
        wrong = broken(self.run, self.truth)
        assert wrong == [], self._story(what, wrong)
        wrong = [*self.consumer.broken(), *self._lost()]
        assert wrong == [], self._story(what, wrong)

    def _lost(self) -> Iterator[str]:
        """Rows of finished pushes that no file has any more."""
        plain = self.plain
        for (entity, key), rows in self.pushed.items():
            if plain.seen.versions[key].state in IN_USE and (lost := rows - plain.offline_rows(entity, key).keys()):
                yield f"pushed rows of {entity} {key} are gone: {sorted(lost)[:3]}"

    def _note_pushed(self, command: Command, done: Done) -> None:
        if command.name == "push" and done.code == 0:
            _, _, entity, _, _, _, key, *_ = command.arguments
            pushed = self.plain.offline_rows(entity, key).keys() - self._snapshots(entity, key)
            self.pushed.setdefault((entity, key), set()).update(pushed)

    def _snapshots(self, entity: str, key: str) -> set[tuple[int, datetime]]:
        """Rows that a night's snapshot gave."""
        plain = self.plain
        moments = {day["cutoff"] + DELAY for day in plain.days if day["key"] == key}
        return {row for row in plain.offline_rows(entity, key) if row[1] in moments}

    def _compare(self, command: Command, before: Foretold, done: Done) -> None:
        """The command did, or refused, what the model does or refuses."""
        foretold, after, refused = before.anew(), self.plain, False
        try:
            command.foretell(foretold, after)
        except CatalogueError:
            refused = True
        if done.code == 1 and command.may_fail:
            assert "stays invisible" in done.err, self._story(command, [done.err])
            foretold = before.anew()
            foretold.refresh(after)
        elif done.code == 2 and command.arguments[:2] == ("version", "create"):
            assert before.states & {"training", "backfilling"}, self._story(command, [done.err])
            foretold = before.anew()
        elif done.code == 2 and command.name == "release create":
            given_up = [name for name, each in before.model.releases.items() if each.state in ("retired", "pruned")]
            assert any(name in done.err for name in given_up), self._story(command, [done.err])
            foretold = before.anew()
        elif done.code == 2 and command.name == "push" and not refused:
            assert "a refresh is under way" in done.err, self._story(command, [done.err])
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

    def pick(self, fitting: list[str], everything: list[str]) -> str:
        """Mostly one of those with which the command may succeed."""
        anything = not fitting or self.random.choice([False] * 4 + [True])
        return str(self.random.choice(sorted(everything if anything else fitting)))

    def versions(self, *states: str) -> list[str]:
        return [key for key, each in self.plain.seen.versions.items() if not states or each.state in states]

    def releases(self, *states: str) -> list[str]:
        return [name for name, each in self.plain.seen.releases.items() if not states or each.state in states]

    def next_date(self) -> date | None:
        """The day after the oldest newest day of what is refreshed; none when the raw data ends."""
        plain = self.plain
        visible: dict[str, date] = {}
        for day in plain.days:
            if day["state"] == "visible":
                visible[day["key"]] = day["cutoff"].date()
        newest = [visible[key] for key in refreshed(plain) if key in visible]
        if not newest:
            return None
        following = max(max(newest), min(newest) + timedelta(days=1))
        return following if following <= LAST_DAY else None

    def step(self) -> None:
        """One thing that may happen."""
        self.who, self.why = self.random.choice(["alice", "bob"]), self.random.choice(["old", "slow"])
        (kind,) = self.random.choices(list(KINDS), list(KINDS.values()))
        for command in getattr(self, kind)() or ():
            self.do(command, self._kill(command), self.random.choice(AFTER_KILL))

    def _kill(self, command: Command) -> Kill:
        """None, as often as not."""
        most = MOMENTS.get(command.name, FEW_MOMENTS)
        return self.random.choice([None, (self.random.randint(1, most), self.random.choice([True, False]))])

    def refresh(self) -> Iterator[Command]:
        """The next day, sometimes two."""
        following = self.next_date()
        if following is not None:
            more = timedelta(days=self.random.choice([0, 0, 1]))
            yield self._refresh(min(following + more, LAST_DAY))

    def refused_refresh(self) -> Iterator[Command]:
        """Training goes wrong for a day, which is refused, until it goes on as a new version."""
        following = self.next_date()
        if following is not None:
            yield self._refresh(following, damaged=True)
            if self.random.choice([True, False]):
                yield self._refresh(following, as_new=True)

    def _refresh(self, as_of: date, *, damaged: bool = False, as_new: bool = False) -> Command:
        def foretell(foretold: Foretold, after: PlainRun) -> None:
            if as_new:
                foretold.new_versions(after)
            foretold.refresh(after)

        flags = ("--as-new-version",) if as_new else ()
        arguments = ("refresh", "--as-of", as_of.isoformat(), "--quiet", *flags)
        return Command(arguments, foretell, self.who, damaged=damaged, may_fail=not as_new)

    def create_version(self) -> Iterator[Command]:
        """From scratch, or compatible with one that is there."""
        ready = self.versions(*IN_USE)
        if len(ready) < MOST_VERSIONS:
            parent = self.random.choice(["", *sorted(ready)])
            kind = ("--compatible-with", parent) if parent else ("--from-scratch",)
            arguments = ("version", "create", "--model", "ctr", *kind, "-q")
            yield Command(arguments, Foretold.new_versions, self.who, may_fail=True)

    def backfill(self) -> Iterator[Command]:
        """The day before a version's first one."""
        plain = self.plain
        visible = [day for day in plain.days if day["state"] == "visible"]
        first = {day["key"]: day["cutoff"].date() for day in reversed(visible)}
        continued = [each.key for each in plain.seen.versions.values() if each.parents and each.alignment in ALIGNED]
        able = [key for key in refreshed(plain) if key not in continued and first[key] > FIRST.date() + DAY]
        if able:
            key = self.random.choice(sorted(able))
            when = (first[key] - DAY).isoformat()
            arguments = ("backfill", "--version", key, "--from", when, "--to", when, "-q")
            yield Command(arguments, Foretold.days_alone, self.who)

    def push(self) -> Iterator[Command]:
        """Some users or Pins, known ones and new ones, into one version."""
        versions = self.plain.seen.versions
        key, entity = self.pick(self.versions(*IN_USE), list(versions)), self.random.choice(["user", "pin"])
        most = {"user": NUM_USERS, "pin": NUM_PINS}[entity]
        ids = self.random.sample([*range(1, most + 1), *PUSHED[entity]], 3)
        file = self.folder / f"rows-{next(self.numbers)}.jsonl"
        rows = [{f"{entity}_id": each, "group": f"kind {self.random.randrange(4)}"} for each in ids]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = ("push", "--entity", entity, "--file", str(file), "--version", key, "--quiet")
        yield Command(arguments, lambda foretold, _: foretold.push(key), self.who)

    def feed(self) -> Iterator[Command]:
        """A superseded version is fed by a newer one."""
        versions = self.plain.seen.versions
        key = self.pick(self.versions("superseded"), list(versions))
        through = self.pick([name for name, each in versions.items() if key in each.parents], list(versions))
        named = author(self.who, f"its own training ends, {through} feeds it")
        arguments = ("version", "feed", "--version", key, "--through", through)
        yield Command(arguments, lambda foretold, _: foretold.feed(named, key, through), self.who)

    def create_release(self) -> Iterator[Command]:
        """A team hands in everything, trained anew on a version."""
        key = self.random.choice(sorted(self.versions(*IN_USE)))
        folder = self.folder / f"parts-{next(self.numbers)}"
        self.workshop.call(self.run, "write_parts", folder=folder, key=key)
        named = author(self.who, self.why)
        arguments = ("release", "create", str(folder), "--why", self.why)
        yield Command(arguments, lambda foretold, after: foretold.create(named, after), self.who)

    def promote(self) -> Iterator[Command]:
        """A release that is there."""
        name, named = self.pick(self.releases("candidate", "superseded"), self.releases()), author(self.who, self.why)
        arguments = ("release", "promote", name, "--why", self.why)
        yield Command(arguments, lambda foretold, _: foretold.promote(named, name), self.who)

    def rollback(self) -> Iterator[Command]:
        """To the release before; repeated after a kill at its very end it would go a second step back."""
        named = author(self.who, self.why)
        arguments = ("release", "rollback", "--why", self.why)
        yield Command(arguments, lambda foretold, _: foretold.rollback(named), self.who)

    def shadow(self) -> Iterator[Command]:
        """Begin or end one."""
        able = self.releases("candidate", "superseded")
        name = self.pick(able, self.releases()) if able and self.random.choice([True, False]) else None
        named, chosen = author(self.who, self.why), (name, "--share", "0.5") if name else ()
        arguments = ("release", "shadow", *chosen, "--why", self.why)
        yield Command(arguments, lambda foretold, _: foretold.shadow(named, name), self.who)

    def retire(self) -> Iterator[Command]:
        """A version with every release of it that is not live, or one release."""
        releases = self.plain.seen.releases
        given_up = [name for name, each in releases.items() if each.state in ("candidate", "superseded")]
        if self.random.choice([True, False]):
            targets = [self.pick(given_up, list(releases))]
        else:
            key = self.pick(self.versions("candidate", "superseded"), self.versions())
            targets = [key, *(name for name in given_up if key in releases[name].versions)]
        named = author(self.who, self.why)
        arguments = ("release", "retire", *targets, "--why", self.why)
        yield Command(arguments, lambda foretold, _: foretold.retire(named, *targets), self.who)

    def prune(self) -> Iterator[Command]:
        """Everything that is retired, or one target."""
        retired = [*self.versions("retired"), *self.releases("retired")]
        every = self.random.choice([True, True, False])
        targets = () if every else (self.pick(retired, [*self.versions(), *self.releases()]),)
        named = author(self.who, self.why)
        arguments = ("release", "prune", *targets, "--why", self.why)
        yield Command(arguments, lambda foretold, _: foretold.prune(named, *targets), self.who)

    def give_up_and_delete(self) -> Iterator[Command]:
        """Retire and prune in a row."""
        yield from self.retire()
        yield from self.prune()

    def replace_the_live_version(self) -> Iterator[Command]:
        """A release of another version, made and promoted."""
        yield from self.create_release()
        yield from self.promote()

    def team(self) -> None:
        """A team's own feature service begins or ends to read a version."""
        plain, name = self.plain, self.random.choice(["team_ads", "team_feed"])
        if name in plain.services:
            self._note(f"{name} is deleted")
            self.workshop.call(self.run, "delete_service", name=name)
        else:
            keys = [key for key in plain.seen.versions if f"user_embedding_{key}" in plain.views]
            key = self.random.choice(sorted(keys))
            self._note(f"{name} reads {key}")
            self.workshop.call(self.run, "declare_service", name=name, key=key)
        self._check("a team's service")

    def two_at_once(self) -> None:
        """One operator stands still at a moment, and another one does something meanwhile."""
        names = ["promote", "rollback", "retire", "prune", "refresh", "create_release", "push"]
        found = [next(iter(getattr(self, self.random.choice(names))()), None) for _ in range(2)]
        slow, fast = found
        if slow is None or fast is None:
            return
        moment = self.random.randint(1, 120)
        meanwhile = self.workshop.request(self.run, fast.arguments, "bob", environment={DAMAGE: ""})
        done = self.workshop.command(
            self.run, *slow.arguments, pause=moment, meanwhile=meanwhile, environment={DAMAGE: ""}
        )
        other = f"{done.meanwhile.code} {done.meanwhile.err}" if done.meanwhile is not None else "not begun"
        self._note(f"{slow} -> {done.code}, standing still at moment {moment} for bob: {fast} -> {other}")
        self.counts["two at once"] += 1
        self._check("two at once")

    def take_up(self) -> None:
        """Repeat what was left lying, whatever happened since."""
        if self.left:
            command = self.left.pop(0)
            self._once(command, None)
            self._check(command)
