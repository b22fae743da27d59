"""The towers that a process computes with, kept until a newer day's are there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feature_repo.contract import ENTITIES
from feature_repo.push.errors import TowersError
from feature_repo.push.targets import Target
from feature_repo.push.towers import OUTPUT, LoadProgram, Program, TowersManifest, load_manifest, newest_towers
from feature_repo.versions import VersionRecord

logger = logging.getLogger(__name__)

_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Towers:
    """Towers of one day of one version, loaded."""

    folder: Path
    manifest: TowersManifest
    programs: Mapping[str, Program]


class LoadedTowers:
    """Towers of a run's versions; safe to use from many threads."""

    def __init__(self, run: Path, load_program: LoadProgram) -> None:
        self._run, self._load_program = run, load_program
        self._loaded: dict[str, Towers] = {}
        self._loading = threading.Lock()

    def publish_delay(self, record: VersionRecord) -> timedelta:
        """Time from a cut-off to the moment its vectors may be used.

        Raises:
            TowersError: The version has no towers.
        """
        return self._of(newest_towers(self._run, record.key, _END), record).manifest.publish_delay

    def of(self, target: Target) -> Towers:
        """Towers that a push into a version computes with: the newest that know no more than the day it continues.

        Raises:
            TowersError: There are none, they are of another space, or older than the version's TTL.
        """
        found = self._of(newest_towers(self._run, target.record.key, target.cutoff), target.record)
        if target.cutoff - found.manifest.cutoff > target.ttl:
            raise TowersError(
                f"towers of version {target.record.key} must be of its newest day, {target.cutoff:%Y-%m-%d}, or at "
                f"most its TTL of {target.ttl} behind (got {found.manifest.cutoff:%Y-%m-%d}); "
                f"run `headwater push --prepare --run {self._run}`"
            )
        return found

    def _of(self, folder: Path, record: VersionRecord) -> Towers:
        with self._loading:
            found = self._loaded.get(record.key)
            if found is None or found.folder != folder:
                found = self._loaded[record.key] = self._load(folder)
        if found.manifest.space_id != record.space_id:
            raise TowersError(
                f"towers in {folder} must be of version {record.key}'s space, {record.space_id} "
                f"(got {found.manifest.space_id}); delete that folder and run `headwater push --prepare` again"
            )
        return found

    def _load(self, folder: Path) -> Towers:
        manifest = load_manifest(folder)
        programs = {entity: self._load_program(folder / manifest.program(entity).file, OUTPUT) for entity in ENTITIES}
        logger.info("event=towers_loaded version=%s day=%s", manifest.version, manifest.cutoff.date())
        return Towers(folder=folder, manifest=manifest, programs=programs)
