"""What each command must do to the catalogue, by the model of the catalogue; and what it must refuse."""

from __future__ import annotations

import copy
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing

from feature_repo.versions import (
    CatalogueError,
    DayRecord,
    InUseError,
    WrongStateError,
    release_subject,
    version_subject,
)
from tests.feature_repo.catalogue.model import READY, Model, ModelRelease, ModelVersion
from tests.life.system.plain import PlainRun
from tests.life.system.shop import DAY, FIRST, UNTIL

OPERATOR = socket.gethostname()
FIRST_EMBEDDED = 2
"""Days from the first impression to the first cut-off with embeddings."""


def model_of(plain: PlainRun) -> Model:
    """The model in the state of a run."""
    seen, found = plain.seen, Model()
    for key, version in seen.versions.items():
        found.versions[key] = ModelVersion(version, version.state.value, version.space_id, version.served_through)
    for day in plain.days:
        found.days[day["key"], day["cutoff"]] = DayRecord(**{**day, "failed": tuple(day["failed"])})
    for name, release in seen.releases.items():
        found.releases[name] = ModelRelease(release, release.state.value)
    found.promoted = _promotions(plain)
    found.shadowed = (seen.pointers.shadow, seen.pointers.shadow_share)
    found.revision = seen.pointers.revision
    for key, consumers in seen.consumers.items():
        for each in consumers:
            if each.kind == "service":
                found.services.setdefault(each.name, set()).add(key)
    for each in seen.transitions:
        if each.subject == "pointers":
            found.last_pointing = (str(each.details.get("operation")), each.who, each.why)
        elif each.before != each.after:
            found.makers[each.subject] = (each.after, each.who, each.why)
    return found


def _promotions(plain: PlainRun) -> list[str]:
    """Releases along the chain of promotions that are not undone, oldest first."""
    with closing(sqlite3.connect(plain.data / "registry.db")) as database:
        chain = {
            id: (release, before) for id, release, before in database.execute("SELECT * FROM headwater_promotions")
        }
        (at,) = database.execute("SELECT promotion FROM headwater_pointers").fetchone()
    found: list[str] = []
    while at is not None:
        release, at = chain[at]
        found.append(release)
    return found[::-1]


class Foretold:
    """The state after a command, from the state before it and, for names that only the command can give, after it."""

    def __init__(self, before: PlainRun) -> None:
        self.model, self.states = model_of(before), {each.state for each in before.seen.versions.values()}
        self._before, self._services = before, _registered(before)

    def anew(self) -> Foretold:
        """The same before anything is foretold."""
        found = copy.copy(self)
        found.model = copy.deepcopy(self.model)
        return found

    def promote(self, author: dict[str, str], release: str) -> None:
        """Promote what is not live."""
        if release != self.model.live:
            self.model.promote(release, **author)

    def rollback(self, author: dict[str, str]) -> None:
        """To the release before, named as the command names it."""
        chain = self.model.promoted
        if len(chain) < 2:
            raise WrongStateError("model")
        self.model.rollback(to=chain[-2], expected_live=chain[-1], **author)

    def shadow(self, author: dict[str, str], release: str | None) -> None:
        """With half of the requests."""
        self.model.shadow(release, 0.5 if release else 0.0, **author)

    def retire(self, author: dict[str, str], *targets: str) -> None:
        """All targets, or none."""
        self._record_consumers()
        tried = copy.deepcopy(self.model)
        for subject in self._subjects(targets):
            kind, _, name = subject.partition(" ")
            if tried.makers.get(subject) == ("retired", author["who"], author["why"]):
                continue
            if (tried.versions if kind == "version" else tried.releases)[name].state in ("retired", "pruned"):
                raise WrongStateError("model")
            (tried.retire_version if kind == "version" else tried.retire_release)(name, **author)
        self.model = tried

    def prune(self, author: dict[str, str], *targets: str) -> None:
        """The targets, or all that is retired."""
        self._record_consumers()
        model = self.model
        retired = [release_subject(name) for name, each in model.releases.items() if each.state == "retired"]
        retired += [version_subject(key) for key, each in model.versions.items() if each.state == "retired"]
        repeated = ("pruned", author["who"], author["why"])
        named = self._subjects(targets)
        subjects = [each for each in named if model.makers.get(each) != repeated] if named else retired
        for subject in subjects:
            if subject not in retired:
                raise WrongStateError("model")
            if subject.startswith("version") and model.consumers(subject.partition(" ")[2]):
                raise InUseError("model")
        for subject in sorted(subjects, key=lambda each: each.startswith("version")):
            model.mark_pruned(subject, **author)

    def create(self, author: dict[str, str], after: PlainRun) -> None:
        """A candidate, which the command names."""
        new = [each for name, each in after.seen.releases.items() if name not in self.model.releases]
        for each in new:
            self.model.create_release(each, **author)

    def create_trained(self, author: dict[str, str], version: str, after: PlainRun) -> None:
        """The same, of a version that is ready and has every day that models are trained and judged on."""
        if not self._ready(version) or not trainable(self._before, version):
            raise CatalogueError("model")
        self.create(author, after)

    def refresh(self, after: PlainRun) -> None:
        """Every version that is read gets its days; a release of each day, promoted while its parent is live."""
        self._take_days(after)
        new = {name: each for name, each in after.seen.releases.items() if name not in self.model.releases}
        for name, each in sorted(new.items(), key=lambda item: str(item[1].data_cutoff)):
            self.model.create_release(each, who="refresh", why="model")
            if self.model.live == each.parent:
                self.model.promote(name, who="refresh", why="model")

    def new_versions(self, after: PlainRun) -> None:
        """Whatever is new is a candidate with a space, and says what it comes from."""
        for key, each in after.seen.versions.items():
            if key not in self.model.versions or self.model.versions[key].state in ("training", "backfilling"):
                self.model.versions[key] = ModelVersion(each, "candidate", each.space_id)
        self._take_days(after)

    def push(self, version: str) -> None:
        """Rows alone change, of a version that may be read."""
        if not self._ready(version):
            raise CatalogueError("model")

    def feed(self, author: dict[str, str], version: str, through: str) -> None:
        """A superseded version is fed by a newer one that keeps a map to it."""
        if version not in self.model.versions or self.model.versions[version].state != "superseded":
            raise WrongStateError("model")
        newer = self.model.versions.get(through)
        if newer is None or newer.record.alignment != "backward_compatible" or version not in newer.record.parents:
            raise CatalogueError("model")
        self.model.update_version(version, served_through=through, **author)

    def days_alone(self, after: PlainRun) -> None:
        """Nothing but days changes."""
        self._take_days(after)

    def services_alone(self, after: PlainRun) -> None:
        """What the catalogue knows of services of teams is what the registry had before or has now."""
        known = model_of(after).services
        if known in (self.model.services, self._services, _registered(after)):
            self.model.services = known

    def differences(self, after: PlainRun) -> list[str]:
        """Where a run is not as foretold."""
        names = ("versions", "days", "releases", "pointers", "consumers")
        ours, theirs = self.model.without_times(), after.seen.without_times()
        return [
            f"{name} must be {mine} (got {other})"
            for name, mine, other in zip(names, ours, theirs, strict=False)
            if mine != other
        ]

    def _ready(self, version: str) -> bool:
        return version in self.model.versions and self.model.versions[version].state in READY

    def _take_days(self, after: PlainRun) -> None:
        self.model.days = model_of(after).days

    def _record_consumers(self) -> None:
        self.model.services = self._services

    def _subjects(self, targets: Sequence[str]) -> list[str]:
        subjects = set()
        for target in targets:
            if target not in self.model.versions and target not in self.model.releases:
                raise CatalogueError("model")
            subjects.add((version_subject if target in self.model.versions else release_subject)(target))
        return sorted(subjects)


def _registered(plain: PlainRun) -> dict[str, set[str]]:
    """Versions that services of teams read, as the feature registry has them."""
    found = {name: views for name, views in plain.services.items() if name.startswith("team")}
    return {name: {view.partition("_embedding_")[2] for view in views} for name, views in found.items()}


def author(who: str, why: str) -> dict[str, str]:
    """An operator as commands record them."""
    return {"who": f"{who}@{OPERATOR}", "why": why}


def trainable(plain: PlainRun, key: str) -> bool:
    """Whether a version has every day that the run's models were trained and judged on."""
    visible = {day["cutoff"] for day in plain.days if (day["key"], day["state"]) == (key, "visible")}
    return visible >= {FIRST + number * DAY for number in range(FIRST_EMBEDDED, (UNTIL - FIRST).days + 1)}


def refreshed(plain: PlainRun) -> list[str]:
    """Versions that get every new day."""
    everything = plain.seen.versions.values()
    diverted = {parent for each in everything for parent in each.parents if each.alignment != "backward_compatible"}
    ready = [each for each in everything if each.state in READY and each.key not in diverted]
    return [each.key for each in ready if each.state != "superseded" or plain.seen.consumers.get(each.key)]
