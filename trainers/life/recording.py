"""What a run writes into the catalogue: its embedding versions, from training to candidate, and their days.

A run that starts over forgets the versions and releases of before. It refuses to when they hold what only a person or
a refresh could have made: `refuse_to_lose` says what that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from feature_repo.contract import ENTITIES, EmbeddingVersion
from feature_repo.versions import (
    Catalogue,
    DayRecord,
    DayState,
    ReleaseState,
    VersionRecord,
    VersionState,
    day_subject,
)
from trainers.commit import commit
from trainers.data.manifest import embedding_versions
from trainers.life.artifacts import day_artifacts, version_artifacts
from trainers.life.day_check import alignment_file, published_figures
from trainers.life.home import Home, embedding_version, recorded_recipe
from trainers.life.operators import is_operator
from trainers.steps import RunContext
from trainers.upstream.reference import write_reference
from trainers.upstream.vector_files import num_vectors
from trainers.upstream.walk import daily_file

WHO = "run"
_TRAINED, _PUBLISHED, _VISIBLE = (
    "trained over the run's days",
    "averaged over the run's days",
    "all its days are online",
)


class Author(NamedTuple):
    """Who makes a change, and why."""

    who: str
    why: str


class WouldLoseError(ValueError):
    """A run would start over and so forget what its own steps did not make."""


def refuse_to_lose(context: RunContext) -> None:
    """Do nothing where the catalogue holds nothing but what the run's own steps put there.

    Raises:
        WouldLoseError: It holds more; the text lists what, and says what to do instead.
    """
    lost = would_be_lost(context)
    if lost:
        raise WouldLoseError(
            f"{context.directory} must hold only what `headwater run` makes to be trained again (got "
            f"{'; '.join(lost)}, which would be lost); go on with `headwater refresh` or `headwater version create`, "
            "or train in another folder with --out"
        )


def would_be_lost(context: RunContext) -> list[str]:
    """What a run that starts over would forget, in words."""
    if not context.path("feature_repo/data/registry.db").is_file():
        return []
    home = Home(context)
    catalogue = home.catalogue
    versions = catalogue.versions()
    own = [version for version in versions if version.version == 1]
    found = [f"version {version.key}" for version in versions if version.version > 1]
    found += [text for version in own if (text := _refreshed(catalogue, version))]
    kept = [each for each in catalogue.releases() if each.made_by != WHO and each.state != ReleaseState.PRUNED]
    found += [f"release {each.id}" for each in kept if each.made_by != "refresh"]
    last = [each for each in catalogue.transitions("pointers") if each.before != each.after][-1:]
    return found + [f"the choice of {each.who}, release {each.after}" for each in last if is_operator(each.who)]


def _refreshed(catalogue: Catalogue, version: VersionRecord) -> str:
    """Days that the run's own steps did not make."""
    visible = [day for day in catalogue.days(version.key) if day.state == "visible"]
    makers = [catalogue.transitions(day_subject(version.key, day.cutoff), limit=1) for day in visible]
    num_days = sum(made[-1].who != WHO for made in makers if made)
    return f"{num_days} refreshed days of {version.key}" if num_days else ""


def begin_training(context: RunContext, *, fresh: bool) -> None:
    """Record the run's versions as in training; a fresh training forgets those of before."""
    home = Home(context)
    if fresh and home.catalogue.versions():
        home.catalogue.reset(who=WHO, why="the run starts over")
    window, recipe = home.log.spec.window, home.recipe
    for version in embedding_versions(home.log.spec, recipe):
        home.catalogue.create_version(
            VersionRecord(
                key=version.key,
                model=version.model,
                version=version.version,
                dim=version.dim,
                ttl_hours=version.ttl_hours,
                recipe=recorded_recipe(recipe.upstream),
                commit=commit() or "",
                seed=context.config.seed,
                data_from=window.features_from,
                data_until=window.until,
                alignment=recipe.upstream.alignment,
            ),
            who=WHO,
            why="the run trains it",
        )


def record_trained(home: Home, versions: Iterable[EmbeddingVersion]) -> None:
    """The walks are complete: their days are being published."""
    for version in versions:
        _move(home.catalogue, version.key, VersionState.TRAINING, VersionState.BACKFILLING, _TRAINED)


def record_published(home: Home, versions: Iterable[EmbeddingVersion], cutoff: datetime) -> None:
    """Fix each version's space by its raw vectors of the newest cut-off, and record what it is made of."""
    for version in versions:
        space = write_reference(home.folder(version.key), cutoff)
        digests = version_artifacts(home, version.key)
        home.catalogue.update_version(version.key, space_id=space, artifacts=digests, who=WHO, why=_PUBLISHED)


def record_visible(home: Home, versions: Iterable[EmbeddingVersion], cutoffs: Sequence[datetime]) -> None:
    """Everything is online: the days are visible, the versions may be released.

    The gate figures of the newest day are kept and not judged: there is no day before that could stay live.
    """
    for version in versions:
        record = home.catalogue.version(version.key)
        record_days(home, record, cutoffs, who=WHO, why=_VISIBLE)
        _move(home.catalogue, version.key, VersionState.BACKFILLING, VersionState.CANDIDATE, _VISIBLE)


def record_days(home: Home, record: VersionRecord, cutoffs: Sequence[datetime], *, who: str, why: str) -> None:
    """Days that were generated and published at once, as those of a walk are; those that are visible stay as they are.

    The newest one takes its gate figures along.
    """
    seen = {day.cutoff for day in home.catalogue.days(record.key) if day.state == "visible"}
    for cutoff in cutoffs:
        if cutoff not in seen:
            gates = published_figures(home, record, cutoff) if cutoff == cutoffs[-1] else {}
            _record_day(home, record, cutoff, gates, Author(who=who, why=why))


def _record_day(home: Home, record: VersionRecord, cutoff: datetime, gates: dict[str, float], author: Author) -> None:
    version, folder = embedding_version(record), home.folder(record.key)
    files = {entity: home.snapshot(version, entity, cutoff) for entity in ENTITIES}
    raw = {entity: daily_file(folder, entity, cutoff) for entity in ENTITIES}
    states: tuple[DayState, ...] = ("generated", "checked", "visible")
    for state in states:
        day = DayRecord(
            key=version.key,
            cutoff=cutoff,
            state=state,
            gates=gates,
            snapshot_sha256=day_artifacts(files, raw, alignment_file(folder, cutoff)),
            entities={entity: num_vectors(file) for entity, file in files.items()},
        )
        home.catalogue.put_day(day, who=author.who, why=author.why)


def _move(catalogue: Catalogue, key: str, before: VersionState, after: VersionState, why: str) -> None:
    """Move a version on, unless it went further in an earlier process."""
    if catalogue.version(key).state == before:
        catalogue.move_version(key, after, expected=before, who=WHO, why=why)
