"""What may be done next to releases: commands chosen at random, most of which may succeed."""

from __future__ import annotations

from collections.abc import Iterator

from tests.life.system.commands import Command
from tests.life.system.foretold import author, trainable
from tests.life.system.plain import IN_USE
from tests.life.system.situation import Situation


def create_release(now: Situation) -> Iterator[Command]:
    """A team hands in everything, trained anew on a version."""
    key = now.random.choice(sorted(now.versions(*IN_USE)))
    folder = now.new_file("parts")
    now.workshop.call(now.run, "write_parts", folder=folder, key=key)
    named = author(now.who, now.why)
    arguments = ("release", "create", str(folder), "--why", now.why)
    yield Command(arguments, lambda foretold, after: foretold.create(named, after), now.who)


def train_release(now: Situation) -> Iterator[Command]:
    """Retrieval and the ranker are trained on a version, which mostly has the days for it."""
    plain = now.plain
    able = [key for key in now.versions(*IN_USE) if trainable(plain, key)]
    key, named = now.pick(able, now.versions()), author(now.who, now.why)
    arguments = ("release", "create", "--version", key, "--why", now.why, "-q")
    yield Command(arguments, lambda foretold, after: foretold.create_trained(named, key, after), now.who)


def promote(now: Situation) -> Iterator[Command]:
    """A release that is there."""
    name, named = now.pick(now.releases("candidate", "superseded"), now.releases()), author(now.who, now.why)
    arguments = ("release", "promote", name, "--why", now.why)
    yield Command(arguments, lambda foretold, _: foretold.promote(named, name), now.who)


def rollback(now: Situation) -> Iterator[Command]:
    """To the release before; repeated after a kill at its very end it would go a second step back."""
    named = author(now.who, now.why)
    arguments = ("release", "rollback", "--why", now.why)
    yield Command(arguments, lambda foretold, _: foretold.rollback(named), now.who)


def shadow(now: Situation) -> Iterator[Command]:
    """Begin or end one."""
    able = now.releases("candidate", "superseded")
    name = now.pick(able, now.releases()) if able and now.random.choice([True, False]) else None
    named, chosen = author(now.who, now.why), (name, "--share", "0.5") if name else ()
    arguments = ("release", "shadow", *chosen, "--why", now.why)
    yield Command(arguments, lambda foretold, _: foretold.shadow(named, name), now.who)


def retire(now: Situation) -> Iterator[Command]:
    """A version with every release of it that is not live, or one release."""
    releases = now.plain.seen.releases
    given_up = [name for name, each in releases.items() if each.state in ("candidate", "superseded")]
    if now.random.choice([True, False]):
        targets = [now.pick(given_up, list(releases))]
    else:
        key = now.pick(now.versions("candidate", "superseded"), now.versions())
        targets = [key, *(name for name in given_up if key in releases[name].versions)]
    named = author(now.who, now.why)
    arguments = ("release", "retire", *targets, "--why", now.why)
    yield Command(arguments, lambda foretold, _: foretold.retire(named, *targets), now.who)


def prune(now: Situation) -> Iterator[Command]:
    """Everything that is retired, or one target."""
    retired = [*now.versions("retired"), *now.releases("retired")]
    every = now.random.choice([True, True, False])
    targets = () if every else (now.pick(retired, [*now.versions(), *now.releases()]),)
    named = author(now.who, now.why)
    arguments = ("release", "prune", *targets, "--why", now.why)
    yield Command(arguments, lambda foretold, _: foretold.prune(named, *targets), now.who)


def give_up_and_delete(now: Situation) -> Iterator[Command]:
    """Retire and prune in a row."""
    yield from retire(now)
    yield from prune(now)


def replace_the_live_version(now: Situation) -> Iterator[Command]:
    """A release of another version, made and promoted."""
    yield from now.random.choice([create_release, train_release])(now)
    yield from promote(now)
