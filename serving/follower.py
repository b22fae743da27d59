"""Follows the catalogue: the live release is loaded aside, then takes the place of the one before in one assignment.

A request takes its recommender once and keeps it, so no answer is made of two releases. What may go live next is loaded
before it does (`held.py`), the one before among it; what is neither is freed after its last request. A release that
cannot be loaded leaves the one before in place and is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from feature_repo.release.files import verified_manifest
from feature_repo.release.manifest import ReleaseError
from feature_repo.versions import Catalogue, CatalogueError, Pointers, ReleaseRecord, Split
from serving.experiments import RunningSplit
from serving.held import Held, Loaded, file_stamps, foreseen
from serving.loading import check_spaces, load_recommender
from serving.metrics import Metrics
from serving.recommender import Recommender
from serving.settings import Settings
from serving.shadow import Shadow

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
"""Pause before a refused release is tried again; it doubles every time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A release that should be loaded and cannot be."""

    release: str | None
    """None when the catalogue itself, or the pointer in it, is what is wrong."""
    reason: str


class Follower:
    """Keeps the live release, and the shadow where there is one, loaded; answers what they are at any moment."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._catalogue: Catalogue | None = None
        self._live: Loaded | None = None
        self._shadow: tuple[Loaded, Shadow] | None = None
        self._split: tuple[Loaded | None, Split] | None = None
        self._fixed: Recommender | None = None
        self._prepared: Loaded | None = None
        self._refusals: dict[str, Refusal] = {}
        self._revision: int | None = None
        self._held, self._foreseen = Held(settings, self._load), -1
        self._before: tuple[Loaded, ...] = ()
        self._retry_at, self._retry_s = 0.0, FIRST_RETRY_S
        self._wake, self._stopping = threading.Event(), False
        self._thread: threading.Thread | None = None

    @property
    def recommender(self) -> Recommender | None:
        """What answers a request that begins now; none before the first release is loaded."""
        live = self._live
        return live.recommender if live is not None else self._fixed

    @property
    def shadow(self) -> Shadow | None:
        """What is offered a share of the requests."""
        shadow = self._shadow
        return shadow[1] if shadow is not None else None

    @property
    def split(self) -> RunningSplit | None:
        """The split that a request which begins now is answered in; none where there is none."""
        split = self._split
        if split is None:
            return None
        loaded, declared = split
        return RunningSplit(declared=declared, recommender=loaded.recommender if loaded is not None else None)

    @property
    def split_refusal(self) -> Refusal | None:
        """Why the release of the split is not loaded; none when it is, or there is none."""
        return self._refusals.get("split")

    @property
    def held(self) -> list[str]:
        """Releases that wait loaded, so that going live is a swap."""
        return self._held.releases

    @property
    def refusal(self) -> Refusal | None:
        """Why the release that should answer does not, or may not; none when it does."""
        return self._refusals.get("live") or self._refusals.get("catalogue")

    @property
    def shadow_refusal(self) -> Refusal | None:
        """Why the shadow release is not loaded; none when it is, or there is none."""
        return self._refusals.get("shadow")

    @property
    def catalogue(self) -> Catalogue | None:
        """The catalogue that is followed; none when one folder is served whatever it says."""
        return self._catalogue

    def start(self) -> None:
        """Load what is live now, then follow in a thread.

        A release that must not answer is noted; what else goes wrong, such as a store that cannot be read, is raised,
        so that a supervisor starts the process again.
        """
        if self._settings.release_dir is not None:
            self._load_folder()
            return
        self._open_catalogue()
        self._look(raising=True)
        self._thread = threading.Thread(target=self._follow, name="release-follower", daemon=True)
        self._thread.start()
        self._held.start()

    def stop(self) -> None:
        """End the threads."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._held.stop()
        self._end_shadow()

    @contextmanager
    def prepared(self, release: str) -> Iterator[None]:
        """Load a release and keep it for its promotion within, so that it is known to load and answers at once.

        Raises:
            ReleaseError: It must not answer.
            CatalogueError: The catalogue does not know it.
        """
        assert self._catalogue is not None
        record = self._catalogue.release(release)
        # Also where this process has it: the others have yet to load it.
        verified_manifest(self._settings.run / record.folder, record.manifest_sha256)
        self._prepared = self._loaded(self._catalogue, release)
        try:
            yield
        except BaseException:
            self._prepared = None
            raise

    def nudge(self) -> None:
        """Look at the catalogue now rather than at the end of the pause."""
        self._wake.set()

    def _load_folder(self) -> None:
        directory = self._settings.release_dir
        assert directory is not None
        try:
            self._fixed = load_recommender(self._settings, directory)
            manifest = self._fixed.release.manifest
            self._metrics.now_live(manifest.release)
            self._metrics.loaded(manifest.release, manifest.retrieval.num_pins, manifest.figures)
        except ReleaseError as error:
            self._refuse("live", str(directory), error)

    def _open_catalogue(self) -> None:
        repo = self._settings.repo_path
        if not (repo / "feature_store.yaml").is_file():
            message = f"{repo} must hold feature_store.yaml (got none); run `headwater run` first"
            self._refuse("live", None, ReleaseError(message))
            return
        self._catalogue = Catalogue.of_repo(repo)

    def _follow(self) -> None:
        while not self._stopping:
            self._wake.wait(self._settings.poll_ms / 1000)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._look(raising=False)
            except Exception as error:
                # Whatever it is, the release stays and the next look may do better.
                self._refuse("catalogue", None, error)

    def _look(self, *, raising: bool) -> None:
        """One look at the pointers, and whatever follows from it.

        Args:
            raising: Let what is wrong with the store, not with a release, escape.
        """
        try:
            if self._catalogue is None:
                self._open_catalogue()
            if self._catalogue is not None:
                self._obey(self._catalogue, raising=raising)
        except CatalogueError as error:
            self._metrics.polls.labels("failed").inc()
            self._refuse("catalogue", None, error)

    def _obey(self, catalogue: Catalogue, *, raising: bool) -> None:
        pointers = catalogue.pointers()
        self._metrics.polls.labels("answered").inc()
        self._accept("catalogue")
        due = bool(self._refusals) and time.monotonic() >= self._retry_at
        if pointers.revision != self._revision or due:
            self._follow_pointers(catalogue, pointers, due=due, raising=raising)
        self._foresee(catalogue)

    def _follow_pointers(self, catalogue: Catalogue, pointers: Pointers, *, due: bool, raising: bool) -> None:
        self._revision, self._before = pointers.revision, self._in_use()
        self._obey_live(catalogue, pointers, raising=raising)
        self._prepared = None
        self._obey_shadow(catalogue, pointers)
        self._obey_split(catalogue, pointers)
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S) if self._refusals and due else FIRST_RETRY_S
        self._retry_at = time.monotonic() + self._retry_s

    def _foresee(self, catalogue: Catalogue) -> None:
        """Have what may go live next loaded, whenever something has changed in the catalogue."""
        change = catalogue.newest_change()
        if change != self._foreseen:
            in_use, wanted = self._in_use(), foreseen(catalogue, self._settings.hold)
            if catalogue.pointers().revision != self._revision:
                # Promoted a moment ago: what must be swapped in next would not be held any more.
                return
            waiting = [each for each in wanted if not any(loaded.is_of(each) for loaded in in_use)]
            self._held.want(waiting, self._before)
            self._foreseen, self._before = change, ()

    def _obey_live(self, catalogue: Catalogue, pointers: Pointers, *, raising: bool) -> None:
        if pointers.live is None:
            reason = "a release must be live (the catalogue has none); promote one with `headwater release promote`"
            self._refuse("live", None, ReleaseError(reason))
            return
        try:
            loaded = self._loaded(catalogue, pointers.live)
        except (ReleaseError, CatalogueError) as error:
            self._refuse("live", pointers.live, error)
        except Exception as error:
            if raising:
                raise
            self._refuse("live", pointers.live, error)
        else:
            self._accept("live")
            if loaded is not self._live:
                self._live = loaded
                self._metrics.now_live(loaded.release)
                logger.info("event=release_live release=%s revision=%d", loaded.release, pointers.revision)

    def _obey_shadow(self, catalogue: Catalogue, pointers: Pointers) -> None:
        before = self._shadow
        if pointers.shadow is None:
            self._accept("shadow")
            self._end_shadow()
            return
        try:
            loaded = self._loaded(catalogue, pointers.shadow)
        except Exception as error:
            self._end_shadow()
            self._refuse("shadow", pointers.shadow, error)
            return
        self._accept("shadow")
        if before is None or loaded is not before[0] or before[1].share != pointers.shadow_share:
            self._end_shadow()
            capacity = self._settings.shadow_queue
            self._shadow = (loaded, Shadow(loaded.recommender, pointers.shadow_share, capacity, self._metrics))

    def _obey_split(self, catalogue: Catalogue, pointers: Pointers) -> None:
        declared, loaded = pointers.split, None
        if declared is not None:
            try:
                loaded = self._loaded(catalogue, declared.release)
            except Exception as error:
                self._refuse("split", declared.release, error)
        if declared is None or loaded is not None:
            self._accept("split")
        before, self._split = self._split, None if declared is None else (loaded, declared)
        if declared is not None and (before is None or before[1] != declared):
            logger.info(
                "event=split name=%s release=%s share=%s holdout=%s loaded=%s",
                declared.name,
                declared.release,
                declared.share,
                declared.holdout,
                loaded is not None,
            )
        elif before is not None and declared is None:
            logger.info("event=split_ended name=%s", before[1].name)

    def _loaded(self, catalogue: Catalogue, release: str) -> Loaded:
        """The release, loaded unless it is already: in use, to be promoted, or held.

        Raises:
            ReleaseError: It must not answer.
            CatalogueError: The catalogue does not know it.
        """
        record = catalogue.release(release)
        for used in self._in_use():
            if used.is_of(record):
                return used
        held = self._held.take(record)
        if held is None:
            return self._load(record)
        check_spaces(held.recommender.release.manifest, _spaces(catalogue))
        return held

    def _in_use(self) -> tuple[Loaded, ...]:
        """What answers, or is about to."""
        shadow = self._shadow[0] if self._shadow is not None else None
        split = self._split[0] if self._split is not None else None
        return tuple(each for each in (self._live, shadow, split, self._prepared) if each is not None)

    def _load(self, record: ReleaseRecord) -> Loaded:
        assert self._catalogue is not None
        folder = self._settings.run / record.folder
        stamps = file_stamps(folder)
        recommender = load_recommender(
            self._settings, folder, manifest_sha256=record.manifest_sha256, spaces=_spaces(self._catalogue)
        )
        self._metrics.loads.labels("loaded").inc()
        manifest = recommender.release.manifest
        self._metrics.loaded(manifest.release, manifest.retrieval.num_pins, manifest.figures)
        return Loaded(release=record.id, recorded=record.created, recommender=recommender, stamps=stamps)

    def _end_shadow(self) -> None:
        shadow, self._shadow = self._shadow, None
        if shadow is not None:
            shadow[1].stop()

    def _refuse(self, role: str, release: str | None, error: Exception) -> None:
        """Note the reason as text: an exception would keep alive what it was raised in."""
        reason = str(error) if isinstance(error, ReleaseError | CatalogueError) else f"{type(error).__name__}: {error}"
        refusal = Refusal(release=release, reason=reason)
        self._metrics.loads.labels("refused").inc()
        if self._refusals.get(role) != refusal:
            logger.error("event=release_refused role=%s release=%s reason=%s", role, release, reason)
            self._refusals = {**self._refusals, role: refusal}

    def _accept(self, role: str) -> None:
        if role in self._refusals:
            self._refusals = {name: each for name, each in self._refusals.items() if name != role}


def _spaces(catalogue: Catalogue) -> dict[str, str | None]:
    return {version.key: version.space_id for version in catalogue.versions()}
