"""What may be done next to embedding versions and their days: commands chosen at random, most of which may succeed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from tests.life.system.commands import Command
from tests.life.system.foretold import Foretold, author, refreshed
from tests.life.system.plain import IN_USE, PlainRun
from tests.life.system.shop import DAY, FIRST, NUM_PINS, NUM_USERS, PUSHED
from tests.life.system.situation import LAST_DAY, Situation

ALIGNED = ("none", "procrustes", "svd_procrustes")
MOST_VERSIONS = 4


def refresh(now: Situation) -> Iterator[Command]:
    """The next day, sometimes two."""
    following = now.next_date()
    if following is not None:
        more = timedelta(days=now.random.choice([0, 0, 1]))
        yield _refresh(now, min(following + more, LAST_DAY))


def catch_up(now: Situation) -> Iterator[Command]:
    """Some days that nobody refreshed."""
    following = now.next_date()
    if following is not None:
        yield _refresh(now, min(following + timedelta(days=now.random.choice([2, 3])), LAST_DAY))


def refused_refresh(now: Situation) -> Iterator[Command]:
    """Training goes wrong for a day, which is refused, until it goes on as a new version."""
    following = now.next_date()
    if following is not None:
        yield _refresh(now, following, damaged=True)
        if now.random.choice([True, False]):
            yield _refresh(now, following, as_new=True)


def _refresh(now: Situation, as_of: date, *, damaged: bool = False, as_new: bool = False) -> Command:
    def foretell(foretold: Foretold, after: PlainRun) -> None:
        if as_new:
            foretold.new_versions(after)
        foretold.refresh(after)

    flags = ("--as-new-version",) if as_new else ()
    arguments = ("refresh", "--as-of", as_of.isoformat(), "--quiet", *flags)
    return Command(arguments, foretell, now.who, damaged=damaged, may_fail=not as_new)


def create_version(now: Situation) -> Iterator[Command]:
    """From scratch, or compatible with one that is there."""
    ready = now.versions(*IN_USE)
    if len(ready) < MOST_VERSIONS:
        parent = now.random.choice(["", *sorted(ready)])
        kind = ("--compatible-with", parent) if parent else ("--from-scratch",)
        arguments = ("version", "create", "--model", "ctr", *kind, "-q")
        yield Command(arguments, Foretold.new_versions, now.who, may_fail=True)


def backfill(now: Situation) -> Iterator[Command]:
    """The day before a version's first one."""
    plain = now.plain
    visible = [day for day in plain.days if day["state"] == "visible"]
    first = {day["key"]: day["cutoff"].date() for day in reversed(visible)}
    continued = [each.key for each in plain.seen.versions.values() if each.parents and each.alignment in ALIGNED]
    pruned = {key for key, each in plain.seen.versions.items() if each.state == "pruned"}
    bereft = [key for key, each in plain.seen.versions.items() if pruned & {*each.parents}]
    able = [key for key in refreshed(plain) if key not in {*continued, *bereft} and first[key] > FIRST.date() + DAY]
    if able:
        key = now.random.choice(sorted(able))
        when = (first[key] - DAY).isoformat()
        arguments = ("backfill", "--version", key, "--from", when, "--to", when, "-q")
        yield Command(arguments, Foretold.days_alone, now.who)


def push(now: Situation) -> Iterator[Command]:
    """Some users or Pins, known ones and new ones, into one version."""
    versions = now.plain.seen.versions
    key, entity = now.pick(now.versions(*IN_USE), list(versions)), now.random.choice(["user", "pin"])
    most = {"user": NUM_USERS, "pin": NUM_PINS}[entity]
    ids = now.random.sample([*range(1, most + 1), *PUSHED[entity]], 3)
    rows = [{f"{entity}_id": each, "group": f"kind {now.random.randrange(4)}"} for each in ids]
    arguments = ("push", "--entity", entity, "--file", str(now.rows(rows)), "--version", key, "--quiet")
    yield Command(arguments, lambda foretold, _: foretold.push(key), now.who, pushes=(entity, key))


def push_by_feast(now: Situation) -> Iterator[Command]:
    """A team's vectors of some users or Pins, through the push source of a version's view."""
    key, entity = now.random.choice(sorted(now.versions(*IN_USE))), now.random.choice(["user", "pin"])
    ids = now.random.sample(range(1, {"user": NUM_USERS, "pin": NUM_PINS}[entity] + 1), 3)
    yield feast_push(entity, key, ids, now.who, seconds=now.random.randint(1, 3600))


def feast_push(entity: str, key: str, ids: Sequence[int], who: str, seconds: int) -> Command:
    """Vectors of the newest snapshot, as of some seconds after it."""
    given = {"entity": entity, "key": key, "ids": list(ids), "seconds": seconds}
    arguments = ("push by feast", entity, key, *map(str, ids))
    return Command(arguments, lambda *_: None, who, call="push_by_feast", given=given, pushes=(entity, key))


def feed(now: Situation) -> Iterator[Command]:
    """A superseded version is fed by a newer one."""
    versions = now.plain.seen.versions
    key = now.pick(now.versions("superseded"), list(versions))
    through = now.pick([name for name, each in versions.items() if key in each.parents], list(versions))
    named = author(now.who, f"its own training ends, {through} feeds it")
    arguments = ("version", "feed", "--version", key, "--through", through)
    yield Command(arguments, lambda foretold, _: foretold.feed(named, key, through), now.who)
