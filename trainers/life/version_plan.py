"""What `version create` would make: the version, whether it was begun before, and the days that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feature_repo.versions import VersionRecord, VersionState
from trainers.commit import commit
from trainers.data.manifest import UPSTREAM_MODELS
from trainers.life.home import Home, recorded_recipe
from trainers.life.refreshed import REFRESHED_STATES
from trainers.upstream_steps import embed_from

UNFINISHED = (VersionState.TRAINING, VersionState.BACKFILLING)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewVersion:
    """What is asked for."""

    model: str
    """Upstream model: `ctr`, `cvr` or `unified`."""
    compatible_with: str | None = None
    """Key of the version to keep a map to; none to train from scratch."""
    seed: int | None = None
    """Seed of training; none for one that no version of the model has."""

    @property
    def parents(self) -> tuple[str, ...]:
        """As the catalogue names them."""
        return (self.compatible_with,) if self.compatible_with else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedVersion:
    """A version that would be made."""

    record: VersionRecord
    """As it is in the catalogue, or would be."""
    begun: bool
    """Whether it is in the catalogue already."""
    cutoffs: tuple[datetime, ...]
    """Days that it is published for."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do but to tell."""
        return self.record.state not in UNFINISHED


def planned_version(home: Home, wanted: NewVersion, noted: Mapping[str, Any]) -> PlannedVersion:
    """The version that the command is about; reads, and writes nothing.

    It is the one that the same command made before it was killed, the unfinished one of the model, or a new one.

    Args:
        noted: What the same command noted and has not told yet.

    Raises:
        ValueError: There is no such model or version, or another version of the model is unfinished.
    """
    known = {each.key: each for each in home.catalogue.versions(states=REFRESHED_STATES)}
    if (made := known.get(noted.get("version", ""))) is not None:
        cutoffs = tuple(day.cutoff for day in home.catalogue.days(made.key) if day.state == "visible")
        return PlannedVersion(record=made, begun=True, cutoffs=cutoffs)
    _check(home, wanted)
    begun = home.catalogue.versions(model=wanted.model, states=UNFINISHED)
    record = _same(begun[0], wanted) if begun else _new(home, wanted)
    return PlannedVersion(record=record, begun=bool(begun), cutoffs=_cutoffs(home, record))


def _check(home: Home, wanted: NewVersion) -> None:
    if wanted.model not in UPSTREAM_MODELS or not home.catalogue.versions(model=wanted.model):
        known = sorted({each.model for each in home.catalogue.versions()})
        raise ValueError(f"--model must be one of {', '.join(known)} (got {wanted.model!r}); give --model {known[0]}")
    for key in wanted.parents:
        parent = home.catalogue.version(key)
        if parent.model != wanted.model or parent.state not in REFRESHED_STATES:
            raise ValueError(
                f"--compatible-with must name a version of {wanted.model} that is {' or '.join(REFRESHED_STATES)} "
                f"(got {key}, which is {parent.state} and of {parent.model}); see `headwater status`"
            )


def _same(begun: VersionRecord, wanted: NewVersion) -> VersionRecord:
    if begun.parents != wanted.parents or wanted.seed not in (None, begun.seed):
        made = f"compatible with {begun.parents[0]}" if begun.parents else "from scratch"
        raise ValueError(
            f"version {begun.key} must be finished before another of {begun.model} is begun (it is {begun.state}, made "
            f"{made} with seed {begun.seed}); repeat its command to go on, or retire it"
        )
    return begun


def _new(home: Home, wanted: NewVersion) -> VersionRecord:
    number, recipe = home.catalogue.next_version(wanted.model), home.recipe.upstream
    newest = [home.catalogue.newest_day(each.key) for each in home.catalogue.versions(states=REFRESHED_STATES)]
    return VersionRecord(
        key=f"{wanted.model}_v{number}",
        model=wanted.model,
        version=number,
        dim=recipe.embedding_dim,
        ttl_hours=recipe.ttl_hours,
        recipe=recorded_recipe(recipe),
        commit=commit() or "",
        seed=home.context.config.seed + number - 1 if wanted.seed is None else wanted.seed,
        data_from=home.log.spec.window.features_from,
        data_until=max(day.cutoff for day in newest if day is not None),
        parents=wanted.parents,
        alignment="backward_compatible" if wanted.parents else recipe.alignment,
    )


def _cutoffs(home: Home, record: VersionRecord) -> tuple[datetime, ...]:
    """Days that a version is published for: as a run does, a day before downstream training begins."""
    assert record.data_until is not None
    first = embed_from(home.log)
    return tuple(first + timedelta(days=day) for day in range((record.data_until - first).days + 1))
