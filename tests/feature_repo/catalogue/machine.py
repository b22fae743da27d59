"""Random operations on a catalogue, killed at any statement, against the model.

`CatalogueMachine` calls the catalogue's own methods. A machine for a whole run overrides `run_operation`, so that
commands make the same operations, and adds rules and invariants of its own.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import event

from feature_repo.versions import Catalogue, CatalogueError, DayState, VersionState
from tests.feature_repo.catalogue.invariants import violations
from tests.feature_repo.catalogue.kills import do_not_sync, run_exiting, run_killed
from tests.feature_repo.catalogue.lives import cutoff, day, release, space, version
from tests.feature_repo.catalogue.model import NEXT_DAY, READY, Model
from tests.feature_repo.catalogue.seen import look

KEYS = ("ctr_v1", "ctr_v2", "ctr_v3", "cvr_v1", "cvr_v2")
RELEASES = ("r-1", "r-2", "r-3", "r-4", "r-5")
OTHER_SPACE = "0123456789ab"
TRAINING, BACKFILLING, CANDIDATE, *_ = VersionState
HOW = {"raise": run_killed, "exit": run_exiting}

Author = dict[str, str]
Kill = tuple[str, int] | None

authors = st.sampled_from([{"who": who, "why": why} for who in ("alice@desk", "bob@desk") for why in ("old", "slow")])
moments = st.integers(0, 24)
kills = st.sampled_from([""] * 7 + ["raise"] * 6 + ["exit"]).flatmap(
    lambda how: st.tuples(st.just(how), moments) if how else st.none()
)
wild = st.sampled_from([False, False, False, True])
"""Whether to ask for anything at all instead of for what may succeed."""


class CatalogueMachine(RuleBasedStateMachine):
    """Every operation of the catalogue, by two operators, with kills."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="hw-catalogue-")
        self.catalogue = Catalogue(f"sqlite:///{self.folder.name}/registry.db")
        event.listen(self.catalogue._database.engine, "connect", do_not_sync)
        self.model = Model()

    def teardown(self) -> None:
        self.catalogue.close()
        self.folder.cleanup()

    def run_operation(self, name: str, **arguments: Any) -> object:
        """Make one operation of the model real."""
        method: Callable[..., object] = getattr(self.catalogue, name)
        return method(**arguments)

    def do(self, name: str, kill: Kill = None, **arguments: Any) -> None:
        """Run an operation, killed at first if asked; it must then do, or refuse, just what the model does."""
        after, error = _foretold(self.model, name, arguments)
        if kill is not None:
            HOW[kill[0]](self.catalogue, kill[1], lambda: self.run_operation(name, **arguments))
            assert look(self.catalogue).without_times() in (self.model.without_times(), after.without_times())
        try:
            self.run_operation(name, **arguments)
            raised = None
        except CatalogueError as refused:
            raised = refused
        assert type(raised) is error, f"{name}({arguments}) must raise {error} (got {raised!r})"
        self.model = after

    def pick(self, data: st.DataObject, fitting: Sequence[Any], everything: Sequence[Any]) -> Any:
        """Mostly one of those with which the operation may succeed."""
        anything = not fitting or data.draw(wild)
        return data.draw(st.sampled_from(everything if anything else fitting))

    def keys(self, *states: str) -> list[str]:
        return [key for key, each in self.model.versions.items() if each.state in states]

    def named(self, *states: str) -> list[str]:
        return [name for name, each in self.model.releases.items() if each.state in states]

    @initialize(author=authors)
    def begin_with_two_promotions(self, author: Author) -> None:
        for key in ("ctr_v1", "cvr_v1"):
            self.make_ready(key, (), author, True)
        for name, keys in (("r-1", ("ctr_v1",)), ("r-2", ("ctr_v1", "cvr_v1"))):
            self.do("create_release", record=release(name, *keys), **author)
            self.do("promote", id=name, **author)

    @rule(key=st.sampled_from(KEYS), parents=st.sampled_from([(), ("ctr_v1",)]), author=authors, given=st.booleans())
    def make_ready(self, key: str, parents: tuple[str, ...], author: Author, given: bool) -> None:
        """The whole way to candidate of a version that is not there yet, refused at its end without a space id."""
        if key in self.model.versions:
            return
        self.do("create_version", record=version(key, parents=() if key == "ctr_v1" else parents), **author)
        if key in self.model.versions:
            self.do("move_version", key=key, to=BACKFILLING, expected=TRAINING, **author)
            if given:
                self.do("update_version", key=key, space_id=space(key), **author)
            self.do("move_version", key=key, to=CANDIDATE, expected=BACKFILLING, **author)

    @rule(key=st.sampled_from(KEYS), seed=st.sampled_from([0, 0, 0, 1]), author=authors, kill=kills)
    def create_version(self, key: str, seed: int, author: Author, kill: Kill) -> None:
        parents = () if key == "ctr_v1" else ("ctr_v1",)
        self.do("create_version", kill, record=version(key, seed=seed, parents=parents), **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def move_version(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        key = self.pick(data, self.keys("training", "backfilling"), KEYS)
        expected = self.pick(data, self._states(key), list(VersionState))
        to = self.pick(data, [each for each in (BACKFILLING, CANDIDATE) if each > expected], list(VersionState))
        self.do("move_version", kill, key=key, to=to, expected=expected, **author)

    @rule(data=st.data(), other=wild, author=authors, kill=kills)
    def give_space(self, data: st.DataObject, other: bool, author: Author, kill: Kill) -> None:
        key = self.pick(data, self.keys("training", "backfilling"), KEYS)
        self.do("update_version", kill, key=key, space_id=OTHER_SPACE if other else space(key), **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def serve_through(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        children = [key for key in self.keys(*READY) if "ctr_v1" in self.model.versions[key].record.parents]
        key = self.pick(data, ["ctr_v1"], KEYS)
        self.do("update_version", kill, key=key, served_through=self.pick(data, children, ("", *KEYS)), **author)

    @rule(data=st.data(), number=st.integers(0, 1), snapshot=st.sampled_from("aab"), author=authors, kill=kills)
    def put_day(self, data: st.DataObject, number: int, snapshot: str, author: Author, kill: Kill) -> None:
        key = self.pick(data, self.keys("training", "backfilling", *READY), KEYS)
        stored = self.model.days.get((key, cutoff(number)))
        states: tuple[DayState, ...] = ("generated", "checked", "failed", "visible")
        state = self.pick(data, NEXT_DAY[None if stored is None else stored.state], states)
        record = day(key, number, state, snapshot_sha256={"user": snapshot})
        self.do("put_day", kill, record=record, **author)

    @rule(data=st.data(), other=wild, author=authors, kill=kills)
    def create_release(self, data: st.DataObject, other: bool, author: Author, kill: Kill) -> None:
        name = self.pick(data, [each for each in RELEASES if each not in self.model.releases], RELEASES)
        once_ready = self.keys(*READY, "retired")
        parts = [self.pick(data, [key for key in once_ready if key.startswith("ctr")], KEYS)]
        if data.draw(st.booleans()):
            parts.append(self.pick(data, [key for key in once_ready if key.startswith("cvr")], KEYS))
        spaces = {key: OTHER_SPACE if other else self._space(key) for key in parts}
        self.do("create_release", kill, record=release(name, versions=spaces), **author)

    @rule(data=st.data(), seen=wild, author=authors, kill=kills)
    def promote(self, data: st.DataObject, seen: bool, author: Author, kill: Kill) -> None:
        name = self.pick(data, self.named("candidate", "superseded"), RELEASES)
        expected = {"expected_live": self.pick(data, [self.model.live], RELEASES)} if seen else {}
        self.do("promote", kill, id=name, **expected, **author)

    @rule(data=st.data(), anywhere=wild, author=authors, kill=kills)
    def rollback(self, data: st.DataObject, anywhere: bool, author: Author, kill: Kill) -> None:
        to = self.pick(data, self.model.promoted[:-1], RELEASES) if anywhere else None
        self.do("rollback", kill, to=to, **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def replace_the_live_release(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        """A new release of a version that is ready, promoted at once."""
        names, ready = [each for each in RELEASES if each not in self.model.releases], self.keys(*READY)
        if names and ready:
            key = data.draw(st.sampled_from(ready))
            self.do("create_release", record=release(names[0], versions={key: self._space(key)}), **author)
            self.do("promote", kill, id=names[0], **author)

    @rule(data=st.data(), author=authors, kill=kills, service=wild)
    def give_a_version_up(self, data: st.DataObject, author: Author, kill: Kill, service: bool) -> None:
        """Retire what reads a version that is not live, then the version; no release may name it; then prune it."""
        keys = self.keys("training", "backfilling", "candidate", "superseded")
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        for kind, name in sorted(self.model.consumers(key)):
            if kind == "release" and name not in (self.model.live, self.model.shadowed[0]):
                self.do("retire_release", id=name, **author)
        self.do("retire_version", kill, key=key, **author)
        for name in [each for each in RELEASES if each not in self.model.releases][:1]:
            self.do("create_release", kill, record=release(name, versions={key: self._space(key)}), **author)
        if service:
            self.do("record_consumers", services={"fraud": [key]}, generated=[])
        self.do("mark_pruned", kill, subject=f"version {key}", **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def shadow(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        name = self.pick(data, [None, *self.named("candidate", "superseded")], RELEASES)
        self.do("shadow", kill, id=name, share=0.0 if name is None else 0.5, **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def retire_release(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        self.do("retire_release", kill, id=self.pick(data, self.named("superseded"), RELEASES), **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def retire_version(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        free = [key for key in self.keys("training", "superseded") if not self.model.consumers(key)]
        self.do("retire_version", kill, key=self.pick(data, free, KEYS), **author)

    @rule(data=st.data(), author=authors, kill=kills)
    def mark_pruned(self, data: st.DataObject, author: Author, kill: Kill) -> None:
        retired = [f"version {key}" for key in self.keys("retired")] + [f"release {r}" for r in self.named("retired")]
        everything = [f"version {key}" for key in KEYS] + [f"release {name}" for name in RELEASES]
        self.do("mark_pruned", kill, subject=self.pick(data, retired, everything), **author)

    @rule(service=st.sampled_from(["fraud", "ranking"]), keys=st.lists(st.sampled_from(KEYS), max_size=1), kill=kills)
    def record_consumers(self, service: str, keys: list[str], kill: Kill) -> None:
        # The views of a pruned version are gone, so no service reads them.
        kept = [key for key in keys if key not in self.keys("pruned")]
        self.do("record_consumers", kill, services={service: kept}, generated=["ranking"])

    @rule(seldom=st.integers(0, 3), author=authors, kill=kills)
    def reset(self, seldom: int, author: Author, kill: Kill) -> None:
        if seldom == 0:
            self.do("reset", kill, **author)

    @invariant()
    def is_what_it_promises(self) -> None:
        seen = look(self.catalogue)
        assert seen.without_times() == self.model.without_times()
        assert violations(seen) == []

    def _space(self, key: str) -> str:
        """Space id that the catalogue has of a version, or one that it has not."""
        known = self.model.versions.get(key)
        return OTHER_SPACE if known is None or known.space_id is None else known.space_id

    def _states(self, key: str) -> list[VersionState]:
        return [VersionState(self.model.versions[key].state)] if key in self.model.versions else []


def _foretold(model: Model, name: str, arguments: dict[str, Any]) -> tuple[Model, type[CatalogueError] | type[None]]:
    """The model after an operation, or as it is with the error that the operation must raise."""
    after = copy.deepcopy(model)
    try:
        getattr(after, name)(**arguments)
    except CatalogueError as refused:
        return model, type(refused)
    return after, type(None)
