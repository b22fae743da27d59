"""The home of embedding versions: a run, its event log, its feature repo and its catalogue, opened once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from feature_repo.contract import MANIFEST_FILE, EmbeddingVersion, RepoManifest, embedding_view
from feature_repo.versions import Catalogue, DayRecord, VersionRecord
from trainers import run_config
from trainers.data.event_log import EventLog
from trainers.data.prepare import EVENT_LOG, OFFLINE, REPO
from trainers.recipes import RunRecipe, get_recipe
from trainers.steps import RunContext, remove
from trainers.upstream.publish import snapshot_name
from trainers.upstream.recipes import UpstreamRecipe, recipe_from

UPSTREAM = "upstream"
INPUTS_FILE = "inputs.json"
"""What the towers of a version read, in its folder."""


class Home:
    """Where the versions of a run live."""

    def __init__(self, context: RunContext) -> None:
        self.context = context

    @classmethod
    def of_run(cls, run: Path) -> Home:
        """Home of a run that has been trained.

        Raises:
            ValueError: The folder is no run, or its versions are not in the catalogue.
        """
        config = run_config.load(run)
        if config is None:
            raise ValueError(f"--run must be the directory of a run (got {str(run)!r}); start one with `headwater run`")
        home = cls(RunContext(config=config))
        if not (home.repo_dir / "data" / MANIFEST_FILE).is_file() or not home.catalogue.versions():
            raise ValueError(
                f"{run} must hold embedding versions (got none); run `headwater run --run {run}` to the end first"
            )
        return home

    @property
    def run(self) -> Path:
        """Directory of the run."""
        return self.context.directory

    @cached_property
    def log(self) -> EventLog:
        """The event log."""
        return EventLog(self.context.path(EVENT_LOG))

    @property
    def repo_dir(self) -> Path:
        """The feature repo."""
        return self.context.path(REPO)

    @property
    def offline(self) -> Path:
        """Files of the offline store."""
        return self.context.path(OFFLINE)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Versions, days and releases."""
        return Catalogue.of_repo(self.repo_dir)

    @cached_property
    def recipe(self) -> RunRecipe:
        """The run's recipe; a version keeps the part that it was made with."""
        return get_recipe(self.context.config.recipe)

    def manifest(self) -> RepoManifest:
        """The feature repo's manifest, with every version that has views."""
        return RepoManifest.load(self.repo_dir / "data")

    def folder(self, key: str) -> Path:
        """Folder of a version's checkpoint, raw vectors and reference frame."""
        return version_folder(self.run, key)

    def remove_partials(self) -> None:
        """Remove files and folders that killed processes had half written; only with the run's lock."""
        for path in list((self.run / UPSTREAM).rglob(".*.partial")):
            remove(path)

    def view_folder(self, version: EmbeddingVersion, entity: str) -> Path:
        """Snapshots of one of a version's views."""
        return self.offline / embedding_view(entity, version.model, version.version)

    def snapshot(self, version: EmbeddingVersion, entity: str, cutoff: datetime) -> Path:
        """Snapshot of a cut-off."""
        return self.view_folder(version, entity) / snapshot_name(cutoff)

    def cutoff_of(self, day: datetime) -> datetime:
        """The cut-off on a UTC date: all are at one time of day."""
        anchor = self.log.spec.window.features_from
        return datetime.combine(day.date(), anchor.timetz()).astimezone(UTC)

    def newest_day(self, key: str) -> DayRecord:
        """Newest visible day of a version.

        Raises:
            ValueError: It has none.
        """
        newest = self.catalogue.newest_day(key)
        if newest is None:
            raise ValueError(f"version {key} must have a visible day (got none); finish its training first")
        return newest


def version_folder(run: Path, key: str) -> Path:
    """Folder of a version in a run."""
    return run / UPSTREAM / key


def embedding_version(record: VersionRecord) -> EmbeddingVersion:
    """A recorded version as Feast sees it."""
    return EmbeddingVersion(model=record.model, version=record.version, dim=record.dim, ttl_hours=record.ttl_hours)


def upstream_recipe(record: VersionRecord) -> UpstreamRecipe:
    """The recipe that a version was made with and is refreshed with, whatever recipes say now."""
    return recipe_from(record.recipe)


def recorded_recipe(recipe: UpstreamRecipe) -> dict[str, Any]:
    """A recipe as the catalogue keeps it."""
    recorded: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return recorded


def by_key(records: Iterable[VersionRecord]) -> Mapping[str, VersionRecord]:
    """Versions by key."""
    return {record.key: record for record in records}
