"""Which embedding versions a release is trained on, and whether it can be: ready, and with every day that is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from feature_repo.contract import EmbeddingVersion, service_name
from feature_repo.layout import open_store
from feature_repo.release.agreement import references_by_service
from feature_repo.release.manifest import Services
from feature_repo.versions import DayRecord, VersionRecord, VersionState, WrongStateError, version_subject
from trainers.data.manifest import UPSTREAM_MODELS, embedding_versions, released_versions
from trainers.life.home import Home, embedding_version
from trainers.life.older_version import no_second_walk
from trainers.life.refreshed import REFRESHED_STATES
from trainers.markers import read_marker
from trainers.upstream_steps import embedded_cutoffs

DAY = timedelta(days=1)
UNFINISHED = (VersionState.TRAINING, VersionState.BACKFILLING)
Named = TypeVar("Named")


class NotTrainableError(ValueError):
    """A version that no release can be trained on as it is; the text says what would make it one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableVersions:
    """One version of each of some upstream models, with its vectors over the training and judged days."""

    records: tuple[VersionRecord, ...]
    """In the order in which services name them."""
    days: Mapping[str, tuple[DayRecord, ...]]
    """Days that training reads, by key of the version."""
    services: Mapping[str, str]
    """Feature services: `retrieval` and `ranking`."""
    index_cutoff: datetime
    """Newest day that all of them have: Pins are indexed as of then."""

    @property
    def versions(self) -> tuple[EmbeddingVersion, ...]:
        """As Feast sees them."""
        return tuple(embedding_version(record) for record in self.records)

    @property
    def spaces(self) -> dict[str, str]:
        """Space id by key."""
        return {record.key: record.space_id or "" for record in self.records}


def trainable_versions(home: Home, named: Sequence[str]) -> TrainableVersions:
    """The versions that are named, and for domains that these do not know those of the live release.

    Raises:
        UnknownSubjectError: There is no such version; the text has the nearest names.
        ValueError: Two are of one model, or a model has none; or the run has never been evaluated.
        NotTrainableError: A version is unfinished, or lacks days.
        WrongStateError: A version was given up; the text says by whom, when and why.
        ReleaseError: The feature registry lacks a service that reads just these.
    """
    _check_evaluated(home.run)
    records = _chosen(home, named)
    needed = embedded_cutoffs(home.log)
    for record in records:
        _check_state(home, record)
    days = {record.key: _days(home, record, needed) for record in records}
    versions = tuple(embedding_version(record) for record in records)
    services = {consumer: service_name(consumer, versions) for consumer in ("retrieval", "ranking")}
    references_by_service(open_store(home.repo_dir), Services(**services))
    newest = min(home.newest_day(record.key).cutoff for record in records)
    return TrainableVersions(records=records, days=days, services=services, index_cutoff=newest)


def _check_evaluated(run: Path) -> None:
    if read_marker(run, "evaluate") is None:
        raise ValueError(
            f"--version trains again what the run's step evaluate trained (got {run}, where it has not finished); run "
            f"`headwater run --run {run}` first"
        )


def _chosen(home: Home, named: Sequence[str]) -> tuple[VersionRecord, ...]:
    found: dict[str, VersionRecord] = {}
    for record in map(home.catalogue.version, dict.fromkeys(named)):
        if record.model in found:
            raise ValueError(
                f"--version must name one version of a model (got {found[record.model].key} and {record.key}); "
                "leave one out"
            )
        found[record.model] = record
    live = home.catalogue.pointers().live
    if live is not None:
        theirs = (home.catalogue.version(key) for key in home.catalogue.release(live).versions)
        found = completed(found, {record.model: record for record in theirs})
    models = [version.model for version in released_versions(embedding_versions(home.log.spec, home.recipe))]
    if absent := [model for model in completed(dict.fromkeys(found), dict.fromkeys(models)) if model not in found]:
        has = f"the live release {live} has none" if live else "no release is live to take it from"
        raise ValueError(f"--version must name a version of {', '.join(absent)} too (got none, and {has}); name one")
    return tuple(found[model] for model in UPSTREAM_MODELS if model in found)


def completed(named: Mapping[str, Named], others: Mapping[str, Named]) -> dict[str, Named]:
    """What is named for some models, and of others what is there for those that know a domain which these do not."""
    known = {domain for model in named for domain in UPSTREAM_MODELS[model]}
    missing = {model: each for model, each in others.items() if not known.issuperset(UPSTREAM_MODELS[model])}
    return {**missing, **named}


def _check_state(home: Home, record: VersionRecord) -> None:
    if record.state in REFRESHED_STATES:
        return
    subject = version_subject(record.key)
    if record.state in UNFINISHED:
        raise NotTrainableError(
            f"{subject} must be complete for a release to be trained on it (it is {record.state}); repeat the "
            f"`headwater version create` or `refresh` that makes it, then try again"
        )
    last = [each for each in home.catalogue.transitions(subject) if each.before != each.after][-1]
    raise WrongStateError(
        f"{subject} must be {', '.join(REFRESHED_STATES)} for a release to be trained on it (got {record.state}: "
        f"{last.who} made it so at {last.at.isoformat(timespec='seconds')} because {last.why!r}); take another version",
        last,
    )


def _days(home: Home, record: VersionRecord, needed: Sequence[datetime]) -> tuple[DayRecord, ...]:
    visible = {day.cutoff: day for day in home.catalogue.days(record.key) if day.state == "visible"}
    if missing := [cutoff for cutoff in needed if cutoff not in visible]:
        raise NotTrainableError(
            f"{version_subject(record.key)} must have a visible day for each from {needed[0]:%Y-%m-%d} to "
            f"{needed[-1]:%Y-%m-%d}, which the run's models are trained and judged on (it lacks {_listed(missing)}); "
            f"{_remedy(home, record, missing, sorted(visible))}"
        )
    return tuple(visible[cutoff] for cutoff in needed)


def _remedy(home: Home, record: VersionRecord, missing: Sequence[datetime], visible: Sequence[datetime]) -> str:
    """What brings the missing days, where anything does."""
    run, obstacle = home.run, no_second_walk(home, record)
    if visible and obstacle is None and missing[-1] < visible[0]:
        span = f"--from {missing[0]:%Y-%m-%d} --to {missing[-1]:%Y-%m-%d}"
        return f"`headwater backfill --run {run} --version {record.key} {span}` makes them"
    if visible and missing[0] > visible[-1]:
        return f"`headwater refresh --run {run} --as-of {missing[-1]:%Y-%m-%d}` makes them"
    why = f"it {obstacle} and has" if obstacle is not None else "it cannot get"
    create = f"`headwater version create --run {run} --model {record.model} --from-scratch`"
    return f"{why} no such days, so train another: {create}"


def _listed(days: Sequence[datetime]) -> str:
    """Days as periods: `2024-01-03 to 2024-01-05, 2024-01-09`."""
    periods: list[list[datetime]] = []
    for day in days:
        if periods and day - periods[-1][-1] == DAY:
            periods[-1].append(day)
        else:
            periods.append([day])
    spans = ((f"{period[0]:%Y-%m-%d}", f"{period[-1]:%Y-%m-%d}") for period in periods)
    return ", ".join(first if first == last else f"{first} to {last}" for first, last in spans)
