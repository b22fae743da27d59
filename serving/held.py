"""Releases that are loaded before anybody promotes them, so that a server follows a promotion or a rollback by a swap.

Held are the release that a rollback would bring back and the newest candidate: two at most, beside the live one and
what else answers. A thread loads them; a release that is promoted while it is being loaded is waited for, and one that
changed since, on the disk or in the feature registry, is loaded anew and so refused where it must be.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from feature_repo.contract import MANIFEST_FILE
from feature_repo.layout import open_store
from feature_repo.release.agreement import references_by_service, served_references
from feature_repo.versions import Catalogue, ReleaseRecord, ReleaseState, WrongStateError
from serving.clock import is_replay, replayed_from
from serving.loading import newest_feature
from serving.recommender import Recommender
from serving.settings import Settings

logger = logging.getLogger(__name__)

FileStamps = dict[str, tuple[int, int, int]]
"""Inode, size and moment of the last change of each file of a release."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What is loaded, told apart from a release of the same name that was recorded anew."""

    release: str
    recorded: datetime
    recommender: Recommender
    stamps: FileStamps = field(default_factory=dict)
    """Files as they were before they were read."""

    def is_of(self, record: ReleaseRecord) -> bool:
        """Whether it is this release."""
        return (self.release, self.recorded) == (record.id, record.created)


class Held:
    """Loaded releases that wait, and the thread that loads them.

    Args:
        settings: How many are held, and where they lie.
        load: Loads a release.
    """

    def __init__(self, settings: Settings, load: Callable[[ReleaseRecord], Loaded]) -> None:
        self._settings, self._load = settings, load
        self._changed = threading.Condition()
        self._wanted: tuple[ReleaseRecord, ...] = ()
        self._held: dict[str, Loaded] = {}
        self._loading: str | None = None
        self._failed: set[str] = set()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def releases(self) -> list[str]:
        """Names of those that are held now."""
        return sorted(self._held)

    def start(self) -> None:
        """Load what is wanted in a thread from now on."""
        self._thread = threading.Thread(target=self._work, name="release-preparer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the release in hand, and let go of all."""
        with self._changed:
            self._stopping, self._wanted, self._held = True, (), {}
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def want(self, records: Sequence[ReleaseRecord], loaded: Sequence[Loaded] = ()) -> None:
        """Hold these and no others.

        Args:
            loaded: Releases that are or were in use; those that are wanted need not be loaded.
        """
        with self._changed:
            self._wanted = tuple(records)
            known = [*self._held.values(), *loaded]
            kept = {each.release: each for record in records for each in known if each.is_of(record)}
            self._held, self._failed = kept, set()
            self._changed.notify_all()

    def take(self, record: ReleaseRecord) -> Loaded | None:
        """A release that is held and still what it was; one that is being loaded is waited for.

        One that is not is no longer wanted: whoever asks loads it now.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._loading != record.id)
            found = self._held.get(record.id)
            if found is None:
                self._wanted = tuple(each for each in self._wanted if each.id != record.id)
        if found is None or not found.is_of(record):
            return None
        if is_current(self._settings, found, record):
            return found
        with self._changed:
            self._held.pop(record.id, None)
        return None

    def load_wanted(self) -> None:
        """Load, one after the other, what is wanted and not held."""
        while (record := self._next()) is not None:
            try:
                loaded = self._load(record)
            except Exception as error:
                # Nothing is amiss before somebody promotes it; then the reason is told as every refusal is.
                logger.warning("event=release_not_held release=%s reason=%s", record.id, error)
                loaded = None
            self._put(record, loaded)

    def _work(self) -> None:
        while not self._stopping:
            self.load_wanted()
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._missing() is not None)

    def _next(self) -> ReleaseRecord | None:
        with self._changed:
            record = self._missing()
            self._loading = record.id if record is not None else None
            return record

    def _missing(self) -> ReleaseRecord | None:
        done = self._held.keys() | self._failed
        return next((each for each in self._wanted if each.id not in done), None)

    def _put(self, record: ReleaseRecord, loaded: Loaded | None) -> None:
        with self._changed:
            self._loading = None
            if loaded is None:
                self._failed.add(record.id)
            elif any(loaded.is_of(each) for each in self._wanted):
                self._held[record.id] = loaded
            self._changed.notify_all()


def foreseen(catalogue: Catalogue, most: int) -> list[ReleaseRecord]:
    """Releases that may go live next: what a rollback would bring back, and the newest candidate.

    Args:
        most: Number of releases.
    """
    found = []
    # Nothing to go back to where the live release is the first one, or none is live.
    with suppress(WrongStateError):
        found.append(catalogue.release(catalogue.rollback_target()))
    found += catalogue.releases([ReleaseState.CANDIDATE])[-1:]
    may_go_live = (ReleaseState.CANDIDATE, ReleaseState.SUPERSEDED)
    return [each for each in found if each.state in may_go_live][:most]


def file_stamps(folder: Path) -> FileStamps:
    """Stamps of the files of a release; those that are absent have none."""
    found = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        stat = file.stat()
        found[file.name] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def is_current(settings: Settings, loaded: Loaded, record: ReleaseRecord) -> bool:
    """Whether a release would be loaded as it was: the same files, features of its services and moment of a replay."""
    folder = settings.run / record.folder
    if not (folder / MANIFEST_FILE).is_file() or file_stamps(folder) != loaded.stamps:
        return False
    recommender, manifest = loaded.recommender, loaded.recommender.release.manifest
    found = references_by_service(open_store(settings.repo_path), manifest.services)
    references = {entity: each.references for entity, each in recommender.features.items()}
    if served_references(found, manifest.services) != references:
        return False
    if settings.as_of == "replay" or (settings.as_of == "auto" and is_replay(manifest)):
        newest = newest_feature(recommender.release, recommender.features["pin"])
        return replayed_from(manifest, newest) == recommender.clock()
    return True
