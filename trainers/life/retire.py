"""Giving up releases and embedding versions, once nothing else reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from feature_repo.versions import (
    Catalogue,
    InUseError,
    ReleaseState,
    WrongStateError,
    release_subject,
    version_subject,
)
from trainers.life.consumers import record_consumers
from trainers.life.operators import REPO, is_repeated, last_move
from trainers.life.prune import subject_of


def retirable(run: Path, catalogue: Catalogue, targets: Sequence[str], *, who: str, why: str) -> list[str]:
    """Subjects of release ids and version keys that nothing else reads, releases first, so that versions can follow.

    Consumers are those that the feature registry and the catalogue know now. What the same person has retired for the
    same reason is among the subjects: a command that was killed halfway is repeated as it was.

    Raises:
        UnknownSubjectError: A target is neither a release nor a version.
        InUseError: Something that is not a target reads one; the text names everything that does.
        WrongStateError: A target is retired or pruned already.
    """
    record_consumers(catalogue, run / REPO)
    subjects = sorted({subject_of(catalogue, target) for target in targets})
    for subject in subjects:
        kind, _, name = subject.partition(" ")
        if is_repeated(catalogue, subject, ReleaseState.RETIRED, who=who, why=why):
            continue
        if kind == "release":
            _check_release(catalogue, name)
        else:
            _check_version(catalogue, name, subjects)
    return subjects


def superseded_before(catalogue: Catalogue, cutoff: datetime) -> list[str]:
    """Superseded releases whose data ends before a moment; the shadow and that of a split are left out."""
    pointers = catalogue.pointers()
    tried = {pointers.shadow, pointers.split.release if pointers.split else None}
    found = catalogue.releases([ReleaseState.SUPERSEDED])
    return [each.id for each in found if each.data_cutoff and each.data_cutoff < cutoff and each.id not in tried]


def retire(catalogue: Catalogue, subjects: Sequence[str], *, who: str, why: str) -> None:
    """Retire subjects in their order; whatever has come to read one by then keeps it, and those after it."""
    for subject in subjects:
        kind, _, name = subject.partition(" ")
        if kind == "release":
            catalogue.retire_release(name, who=who, why=why)
        else:
            catalogue.retire_version(name, who=who, why=why)


def _check_release(catalogue: Catalogue, name: str) -> None:
    pointers = catalogue.pointers()
    split = pointers.split.release if pointers.split else None
    named = {"live": pointers.live, "shadow": pointers.shadow, "split": split}
    if roles := [role for role, release in named.items() if release == name]:
        raise InUseError(
            f"release {name} must be neither live nor the shadow nor in a split (it is {', '.join(roles)}); "
            "change that first"
        )
    _check_state(catalogue, release_subject(name), catalogue.release(name).state)


def _check_version(catalogue: Catalogue, key: str, subjects: Sequence[str]) -> None:
    _check_state(catalogue, version_subject(key), catalogue.version(key).state)
    if others := [each for each in catalogue.consumers(key) if f"{each.kind} {each.name}" not in subjects]:
        listed = "; ".join(map(str, others))
        raise InUseError(
            f"version {key} must have no consumers to be retired (got {len(others)}: {listed}); "
            "retire those releases and move those services first",
            others,
        )


def _check_state(catalogue: Catalogue, subject: str, state: str) -> None:
    if state in ("retired", "pruned"):
        last = last_move(catalogue, subject)
        told = (
            f": {last.who} made it so at {last.at.isoformat(timespec='seconds')} because {last.why!r}" if last else ""
        )
        remedy = "`headwater release prune` is next" if state == "retired" else "nothing is left of it to give up"
        raise WrongStateError(f"{subject} must not be retired yet (it is {state}{told}); {remedy}", last)
