"""Deletes what retirement has released, from every store, and nothing else.

Of a version: its snapshots in the offline store, its online rows (its views leave the feature registry through Feast,
which drops them), its folder of checkpoints and raw vectors, and models on it that no release came of. Of a release:
its folder. Every part may be repeated, and the catalogue is told last, so that a prune that was killed goes on when it
is asked for again.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from feature_repo.contract import MANIFEST_FILE, RepoManifest, write_atomically
from feature_repo.layout import open_store
from feature_repo.versions import (
    Catalogue,
    ReleaseState,
    UnknownSubjectError,
    VersionRecord,
    VersionState,
    release_subject,
    version_subject,
)
from trainers.life.consumers import record_consumers, views_of
from trainers.life.operators import REPO, is_repeated
from trainers.life.retraining import retraining_folders_of
from trainers.markers import MARKERS_DIR, read_marker, write_marker

logger = logging.getLogger(__name__)

UPSTREAM = "upstream"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prunable:
    """One retired version or release, and what would be deleted with it."""

    subject: str
    """`version ctr_v1` or `release r-…`."""
    paths: tuple[Path, ...]
    """Folders of the run that are there and hold nothing else."""
    views: tuple[str, ...]
    """Feature views that leave the registry, with their online rows; those that are still in it."""
    bytes: int
    """Size of the folders."""


def prunable(
    run: Path, catalogue: Catalogue, targets: Sequence[str] = (), *, who: str = "", why: str = ""
) -> list[Prunable]:
    """What may be deleted: everything that is retired, or the targets alone.

    Args:
        targets: Release ids and version keys.
        who: Operator; a target that the same one has pruned for the same reason is left out, so that a command that
            was killed halfway is repeated as it was.
        why: The reason.

    Raises:
        UnknownSubjectError: A target is neither.
        WrongStateError: A target is not retired.
        InUseError: A service has begun to read a version since it was retired.
    """
    record_consumers(catalogue, run / REPO)
    named = [subject_of(catalogue, each) for each in targets]
    left = [each for each in named if not is_repeated(catalogue, each, VersionState.PRUNED, who=who, why=why)]
    subjects = left if named else _retired(catalogue)
    for subject in subjects:
        catalogue.check_prunable(subject)
    return [_of_subject(run, catalogue, subject) for subject in subjects]


def subject_of(catalogue: Catalogue, target: str) -> str:
    """Subject that a person means by a release id or a version key.

    Raises:
        UnknownSubjectError: It is neither.
    """
    versions = [version.key for version in catalogue.versions()]
    if target in versions:
        return version_subject(target)
    releases = [release.id for release in catalogue.releases()]
    if target not in releases:
        raise UnknownSubjectError("release or version", target, [*releases, *versions])
    return release_subject(target)


def prune(run: Path, catalogue: Catalogue, found: Iterable[Prunable], *, who: str, why: str) -> None:
    """Delete what was found, one subject after the other; the caller holds the run's lock."""
    for each in found:
        catalogue.check_prunable(each.subject)
        kind, _, name = each.subject.partition(" ")
        _unmark(run, each.paths)
        if kind == "version":
            _undeclare(run / REPO / "data", name)
            _unregister(run / REPO, each.views)
        for path in each.paths:
            _delete(path)
        details = {"paths": [str(path.relative_to(run)) for path in each.paths], "bytes": each.bytes}
        catalogue.mark_pruned(each.subject, who=who, why=why, details={**details, "views": list(each.views)})
        logger.info("event=pruned subject=%r bytes=%d views=%d", each.subject, each.bytes, len(each.views))


def _retired(catalogue: Catalogue) -> list[str]:
    releases = [release_subject(each.id) for each in catalogue.releases([ReleaseState.RETIRED])]
    return releases + [version_subject(each.key) for each in catalogue.versions(states=[VersionState.RETIRED])]


def _of_subject(run: Path, catalogue: Catalogue, subject: str) -> Prunable:
    kind, _, name = subject.partition(" ")
    if kind == "release":
        return _found(subject, [run / catalogue.release(name).folder], ())
    version = catalogue.version(name)
    return _found(subject, _folders(run, version), _registered(run / REPO, views_of(version)))


def _found(subject: str, folders: Sequence[Path], views: tuple[str, ...]) -> Prunable:
    paths = tuple(path for folder in folders for path in (folder, _trash(folder)) if path.exists())
    return Prunable(subject=subject, paths=paths, views=views, bytes=sum(map(_size, paths)))


def _folders(run: Path, version: VersionRecord) -> list[Path]:
    offline = run / REPO / "data" / "offline"
    own = [*(offline / view for view in views_of(version)), run / UPSTREAM / version.key]
    return [*own, *retraining_folders_of(run, version.key)]


def _registered(repo_dir: Path, views: Sequence[str]) -> tuple[str, ...]:
    names = {view.name for view in open_store(repo_dir).list_feature_views()}
    return tuple(view for view in views if view in names)


def _undeclare(data_dir: Path, key: str) -> None:
    """Take the version out of the repo's manifest, so that no apply declares it again."""
    manifest = RepoManifest.load(data_dir)
    kept = tuple(version for version in manifest.embeddings if version.key != key)
    if kept != manifest.embeddings:
        write_atomically(data_dir / MANIFEST_FILE, dataclasses.replace(manifest, embeddings=kept).to_json())


def _unregister(repo_dir: Path, views: Sequence[str]) -> None:
    """Take the views, their sources and the services that read them out of the registry, and their rows offline.

    Feast drops the rows of the views that it is told to delete, and of no others. All that reads them are services of
    Headwater's own: a service of a team's would have kept the version from being retired.
    """
    if not views:
        return
    store = open_store(repo_dir)
    gone = [view for view in store.list_feature_views() if view.name in views]
    sources = {source.name for view in gone for source in (view.batch_source, view.stream_source) if source is not None}
    services = [
        service
        for service in store.list_feature_services()
        if any(projection.name in views for projection in service.feature_view_projections)
    ]
    objects = [*services, *gone, *(source for source in store.list_data_sources() if source.name in sources)]
    store.apply([], objects_to_delete=objects, partial=False)


def _unmark(run: Path, paths: Sequence[Path]) -> None:
    """Let no finished step of the run expect the files any longer: it would run again to bring them back."""
    prefixes = tuple(f"{path.relative_to(run)}/" for path in paths)
    for file in sorted((run / MARKERS_DIR).glob("*.json")):
        marker = read_marker(run, file.stem)
        if marker is not None and any(name.startswith(prefixes) for name in marker.files):
            kept = [name for name in marker.files if not name.startswith(prefixes)]
            write_marker(run, replace(marker, files=kept))


def _delete(folder: Path) -> None:
    """Delete a folder as a whole: one that still has its name is complete."""
    trash = folder if folder.name.startswith(".") else _trash(folder)
    if folder != trash:
        folder.rename(trash)
    shutil.rmtree(trash)


def _trash(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.pruned")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
