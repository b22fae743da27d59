"""Releases in the catalogue: recorded, promoted, and remade over another day's Pins."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_repo.contract import MANIFEST_FILE
from feature_repo.encoding import InputSpec
from feature_repo.layout import open_store
from feature_repo.release.files import RELEASES, sha256_of, verified_manifest
from feature_repo.release.manifest import ReleaseManifest
from feature_repo.versions import Catalogue, ReleaseRecord, ReleaseState, WrongStateError
from trainers.data.event_log import EventLog
from trainers.data.retrieval_data import RetrievalReader
from trainers.life.operators import REPO, is_operator
from trainers.life.pin_index import CandidateProgram, popular_pins, write_pin_index
from trainers.life.release_folders import write_release_folder
from trainers.life.text_ids import write_text_ids
from trainers.progress import SILENT, Progress

logger = logging.getLogger(__name__)


def record_release(
    catalogue: Catalogue, run: Path, manifest: ReleaseManifest, *, made_by: str, who: str, why: str
) -> ReleaseRecord:
    """Add a release whose folder is written to the catalogue, as a candidate; repeated, it changes nothing.

    Raises:
        ReleaseDisagreesError: It was made with versions or spaces that are not the catalogue's.
    """
    folder = f"{RELEASES}/{manifest.release}"
    record = ReleaseRecord(
        id=manifest.release,
        folder=folder,
        manifest_sha256=sha256_of(run / folder / MANIFEST_FILE),
        versions=manifest.spaces(),
        services={"retrieval": manifest.services.retrieval, "ranking": manifest.services.ranking},
        parent=manifest.parent,
        made_by=made_by,
        data_cutoff=manifest.data_cutoff,
        created=manifest.created,
    )
    return catalogue.create_release(record, who=who, why=why)


def refuse_given_up(catalogue: Catalogue, release: str) -> None:
    """Pass when a release may be made: one of the same parts that was given up stays so, and gets no folder again.

    Raises:
        WrongStateError: It is retired or pruned.
    """
    given_up = {each.id: each.state for each in catalogue.releases([ReleaseState.RETIRED, ReleaseState.PRUNED])}
    if release in given_up:
        raise WrongStateError(
            f"release {release} must not have been given up to be made again (it is {given_up[release]}); change a "
            "part of it, such as a figure in its manifest"
        )


def promote_unless_chosen(catalogue: Catalogue, release: str, *, who: str, why: str) -> bool:
    """Promote a release that a step made, unless the live one was put there by a person.

    Returns:
        Whether it is live now.
    """
    live = catalogue.pointers().live
    if live == release:
        return True
    if live is not None and is_operator(chosen_by := promoted_by(catalogue)):
        logger.warning("event=release_not_promoted release=%s live=%s promoted_by=%s", release, live, chosen_by)
        return False
    return _promote_after(catalogue, release, live, who=who, why=why)


def promoted_by(catalogue: Catalogue) -> str:
    """Who made the live release live; empty where none is or nobody did."""
    live = catalogue.pointers().live
    moves = [each for each in catalogue.transitions("pointers") if each.after == live and each.before != live]
    return moves[-1].who if live is not None and moves else ""


def release_folder(run: Path, record: ReleaseRecord) -> Path:
    """Folder of a recorded release."""
    return run / record.folder


def verified_release(run: Path, record: ReleaseRecord) -> ReleaseManifest:
    """Manifest of a recorded release, once every file of it was found unchanged.

    Raises:
        ReleaseError: A file is absent or changed.
    """
    return verified_manifest(release_folder(run, record), record.manifest_sha256)


def release_of_the_day(run: Path, cutoff: datetime, *, who: str, progress: Progress = SILENT) -> ReleaseRecord:
    """The live release's models over a day's Pins: a new index and new popular Pins, the same versions.

    Made by the release's own candidate tower from features that Feast has for the cut-off; recorded with the live
    release as its parent, and promoted when that one is still live by then. Repeated, also after a kill, it finds what
    is done and does the rest.

    Args:
        cutoff: Data cut-off whose snapshots are published.
        who: Step that makes it.

    Returns:
        The day's release; the live one where that is already of this day or of a later one.

    Raises:
        ValueError: No release is live.
        ReleaseError: A file of the live release is absent or changed.
    """
    catalogue = Catalogue.of_repo(run / REPO)
    live = catalogue.pointers().live
    if live is None:
        raise ValueError(f"a release must be live to be remade for a day (got none in {run}); promote one first")
    parent = catalogue.release(live)
    if parent.data_cutoff is not None and parent.data_cutoff >= cutoff:
        return parent
    with progress.stage(f"release of {cutoff:%Y-%m-%d}"):
        try:
            manifest = remade(run, parent, cutoff)
        except WrongStateError as error:
            # A person rolled back from it and gave it up while the refresh lay half done.
            logger.warning("event=release_not_made live=%s reason=%s", live, error)
            return parent
    why = f"index of {cutoff:%Y-%m-%d}"
    record = record_release(catalogue, run, manifest, made_by="refresh", who=who, why=why)
    _promote_after(catalogue, record.id, parent.id, who=who, why=why)
    return catalogue.release(record.id)


def remade(run: Path, parent: ReleaseRecord, cutoff: datetime) -> ReleaseManifest:
    """Write the folder of a release's models over the Pins of a cut-off."""
    models = verified_release(run, parent)
    folder = release_folder(run, parent)
    log = EventLog(run / "event_log")
    encoder = models.encoders.candidate_pin
    offline, service = run / REPO / "data" / "offline", models.services.retrieval
    reader = RetrievalReader(log, open_store(run / REPO), offline, service, InputSpec(side="user"), encoder)

    def fill(partial: Path) -> dict[str, Any]:
        for name in sorted(models.files() - {models.retrieval.index}):
            shutil.copyfile(folder / name, partial / name)
        program = CandidateProgram.of(partial, models.retrieval, encoder)
        pin_ids = write_pin_index(program, reader, cutoff, partial / models.retrieval.index)
        content = models.model_dump(mode="json", by_alias=True, exclude={"format", "release", "created", "sha256"})
        content["retrieval"]["num_pins"] = len(pin_ids)
        return (
            content
            | write_text_ids(log, partial)
            | {
                "parent": parent.id,
                "data_cutoff": cutoff.isoformat(),
                "popular": popular_pins(log, cutoff),
            }
        )

    catalogue = Catalogue.of_repo(run / REPO)
    return write_release_folder(run / RELEASES, fill, check=lambda release: refuse_given_up(catalogue, release))


def _promote_after(catalogue: Catalogue, release: str, live: str | None, *, who: str, why: str) -> bool:
    """Promote a release if another, or none, is still the live one."""
    try:
        catalogue.promote(release, who=who, why=why, expected_live=live)
    except WrongStateError as error:
        if catalogue.pointers().live == live:
            raise
        logger.warning("event=release_not_promoted release=%s reason=%s", release, error)
        return False
    return True
