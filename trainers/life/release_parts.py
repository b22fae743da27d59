"""A release from someone's parts: a folder with retrained models, and the rest from a release that exists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feature_repo.contract import MANIFEST_FILE
from feature_repo.layout import open_store
from feature_repo.release.agreement import disagreements, lacking, references_by_service, served_references
from feature_repo.release.files import RELEASES, sha256_of
from feature_repo.release.manifest import FORMAT, ReleaseError, ReleaseManifest
from feature_repo.versions import Catalogue, ReleaseDisagreesError
from trainers.life.operators import REPO
from trainers.life.program_checks import program_problems
from trainers.life.release_folders import whole, write_release_folder
from trainers.life.releases import record_release, refuse_given_up, release_folder, verified_release

MERGED = ("encoders", "rankers", "services")
"""Keys of which a folder may give a part; the others replace those of the base as a whole."""
_MADE_ELSEWHERE = ("format", "release", "created", "parent", "sha256")
GIVEN = sorted({field.alias or name for name, field in ReleaseManifest.model_fields.items()} - {*_MADE_ELSEWHERE})
"""Keys that a folder's manifest may have, beside `sha256` of its files."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A folder of parts over the release that gives the rest."""

    folder: Path
    given: Mapping[str, Any]
    """The folder's manifest."""
    base: ReleaseManifest
    base_folder: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        """Manifest of the whole, without what follows from its files."""
        old = self.base.model_dump(mode="json", by_alias=True, exclude=set(_MADE_ELSEWHERE))
        new = {
            key: {**old[key], **value} if key in MERGED and isinstance(value, dict) else value
            for key, value in self.given.items()
            if key != "sha256"
        }
        return {**old, **new, "parent": self.base.release}

    def source(self, name: str) -> Path:
        """Where a file of the whole comes from."""
        return self.folder / name if (self.folder / name).is_file() else self.base_folder / name


def read_parts(folder: Path, base: ReleaseManifest, base_folder: Path) -> Parts:
    """The parts in a folder.

    Raises:
        ReleaseError: Its manifest is absent, is no JSON object, has unknown keys, or does not say which embedding
            versions the parts were trained on.
    """
    file = folder / MANIFEST_FILE
    try:
        given = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise ReleaseError(f"{file} must say what the parts are (got no file); docs/releases.md shows one") from error
    except ValueError as error:
        raise ReleaseError(f"{file} must be JSON (got: {error}); correct it") from error
    if not isinstance(given, dict):
        raise ReleaseError(f"{file} must hold one JSON object (got {type(given).__name__}); docs/releases.md shows one")
    if unknown := sorted(set(given) - {*GIVEN, "sha256"}):
        raise ReleaseError(f"{file} may have the keys {', '.join(GIVEN)} and sha256 (got {unknown}); remove the others")
    if "embeddings" not in given:
        raise ReleaseError(
            f"{file} must name the embedding versions that the parts were trained on, with their spaces "
            f"(got no key 'embeddings'); `headwater release show` prints those of a release"
        )
    return Parts(folder=folder, given=given, base=base, base_folder=base_folder)


def create_from_folder(
    run: Path, catalogue: Catalogue, folder: Path, *, base: str | None, who: str, why: str, dry_run: bool = False
) -> ReleaseManifest:
    """Make a release from a folder of parts and record it as a candidate.

    Args:
        base: Release that gives what the folder lacks; the live one when not given.
        dry_run: Check everything and leave nothing.

    Raises:
        ReleaseError: Parts disagree, with every disagreement; or there is no base.
    """
    chosen = base or catalogue.pointers().live
    if chosen is None:
        raise ReleaseError("--base must name the release that gives the other parts (got none, and none is live)")
    record = catalogue.release(chosen)
    parts = read_parts(folder, verified_release(run, record), release_folder(run, record))

    def fill(partial: Path) -> dict[str, Any]:
        manifest = _put_together(parts, partial)
        problems = _problems(run, catalogue, parts, manifest, partial)
        if problems:
            raise ReleaseDisagreesError(
                f"all parts of a release must agree (got: {'; '.join(problems)}); correct {folder} and try again"
            )
        return parts.content

    manifest = write_release_folder(
        run / RELEASES, fill, keep=not dry_run, check=lambda release: refuse_given_up(catalogue, release)
    )
    if not dry_run:
        record_release(catalogue, run, manifest, made_by=who, who=who, why=why)
    return manifest


def _put_together(parts: Parts, partial: Path) -> ReleaseManifest:
    """Copy every file that the whole names; returns the manifest as it would be."""
    file = parts.folder / MANIFEST_FILE
    try:
        named = ReleaseManifest.model_validate({**_stub(), **parts.content, "sha256": _any_digest(parts)}).files()
    except (ValidationError, KeyError, TypeError) as error:
        raise ReleaseError(f"{file} breaks the contract of a release, correct it: {error}") from error
    _check_folder(parts, named)
    for name in sorted(named):
        source = parts.source(name)
        if not source.is_file():
            raise ReleaseError(f"{parts.folder / name} must exist (named in {file}); add it")
        shutil.copyfile(source, partial / name)
    return ReleaseManifest.model_validate(whole(parts.content, partial))


def _check_folder(parts: Parts, named: set[str]) -> None:
    found = {each.name for each in parts.folder.iterdir()} - {MANIFEST_FILE}
    if extra := sorted(found - named):
        raise ReleaseError(f"{parts.folder} must hold only files that its manifest names (got {extra}); remove them")
    for name, expected in parts.given.get("sha256", {}).items():
        file = parts.folder / name
        if not file.is_file() or (got := sha256_of(file)) != expected:
            shown = got if file.is_file() else "no file"
            raise ReleaseError(f"{file} must have sha256 {expected} (got {shown}); copy it again")


def _problems(run: Path, catalogue: Catalogue, parts: Parts, manifest: ReleaseManifest, folder: Path) -> list[str]:
    """Everything in which the parts disagree."""
    return [
        *_space_problems(catalogue, manifest),
        *_inherited_problems(parts, manifest),
        *service_problems(run, manifest),
        *program_problems(folder, manifest),
    ]


def _space_problems(catalogue: Catalogue, manifest: ReleaseManifest) -> list[str]:
    known = {version.key: version for version in catalogue.versions()}
    found = []
    for key, space in manifest.spaces().items():
        if key not in known:
            found.append(f"version {key} is unknown to the catalogue, which has {', '.join(known) or 'none'}")
        elif known[key].space_id != space:
            found.append(f"version {key} is space {known[key].space_id}, and the parts were trained on {space}")
    return found


def _inherited_problems(parts: Parts, manifest: ReleaseManifest) -> list[str]:
    """Parts of the base that were made with other versions, or read through encoders that the folder replaces."""
    base, found = parts.base, []
    replaced = {name for name in parts.given.get("encoders", {}) if _changed(parts, name)}
    rankers = {"pctr": manifest.rankers.pctr, "pcvr": manifest.rankers.pcvr}
    groups = {f"rankers.{name}": ({each.model}, "ranking.") for name, each in rankers.items() if each is not None}
    retrieval = manifest.retrieval
    groups["retrieval.model"] = ({retrieval.model}, "query.")
    groups["retrieval.candidate_model"] = ({retrieval.candidate_model, retrieval.index}, "candidate.")
    for part, (files, prefix) in groups.items():
        if all((parts.folder / name).is_file() for name in files):
            continue
        if manifest.spaces() != base.spaces():
            found.append(f"{part} of {base.release} was trained on {_shown(base)}, and the parts on {_shown(manifest)}")
        if theirs := sorted(name for name in replaced if name.startswith(prefix)):
            found.append(f"{part} of {base.release} reads through its own {', '.join(theirs)}, which the parts replace")
    return found


def _changed(parts: Parts, encoder: str) -> bool:
    old = parts.base.model_dump(mode="json", by_alias=True)["encoders"]
    return bool(old.get(encoder) != json.loads(json.dumps(parts.content["encoders"][encoder])))


def _shown(manifest: ReleaseManifest) -> str:
    return ", ".join(f"{key} ({space})" for key, space in sorted(manifest.spaces().items())) or "no version"


def service_problems(run: Path, manifest: ReleaseManifest) -> list[str]:
    """What a server could not read from the release's services, as the feature registry has them now."""
    store, services = open_store(run / REPO), manifest.services
    try:
        found = references_by_service(store, services)
    except ReleaseError as error:
        return [str(error)]
    candidate = lacking(manifest.encoders.candidate_pin.columns(), "pin", found[services.retrieval]["pin"])
    return [*disagreements(manifest, served_references(found, services)), *candidate]


def check_servable(run: Path, catalogue: Catalogue, release: str) -> ReleaseManifest:
    """Pass when a server of the run could answer from a recorded release now.

    Raises:
        WrongStateError: It was given up; the text says who did it, when and why.
        ReleaseError: A file is absent or changed, or the feature services do not hold what its models read.
    """
    catalogue.check_may_go_live(release)
    manifest = verified_release(run, catalogue.release(release))
    if problems := service_problems(run, manifest):
        raise ReleaseError(f"release {release} must be servable to go live (got: {'; '.join(problems)})")
    return manifest


def _stub() -> dict[str, Any]:
    return {"format": FORMAT, "release": "r-unnamed", "created": datetime.now(UTC)}


def _any_digest(parts: Parts) -> dict[str, str]:
    """Digests that let the manifest be read before its files are there."""
    names = {each.name for each in parts.folder.iterdir()} | parts.base.files()
    return dict.fromkeys(names - {MANIFEST_FILE}, "0" * 64)
