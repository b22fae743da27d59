"""What a version and its days are made of, file by file: the digests that the catalogue keeps.

A version's weights, inputs, evaluation, reference frame, maps and towers are told by their paths in the run; the files
of one day, its snapshots, raw vectors and alignment, by what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feature_repo.contract import ENTITIES
from feature_repo.push.towers import version_towers
from feature_repo.release.files import sha256_of
from trainers.life.home import INPUTS_FILE, Home
from trainers.upstream.reference import reference_file
from trainers.upstream.walk import CHECKPOINT, PROGRESSIVE_FILE

MAPS = "maps"
"""Folder of a version's maps to older ones, in its own."""


def version_artifacts(home: Home, key: str) -> dict[str, str]:
    """sha256 of each file of a version, by its path in the run."""
    folder = home.folder(key)
    single = [folder / name for name in (CHECKPOINT, INPUTS_FILE, PROGRESSIVE_FILE)]
    frame = [reference_file(folder, entity) for entity in ENTITIES]
    return _digests(home.run, [*single, *frame, *sorted((folder / MAPS).glob("*"))]) | tower_artifacts(home.run, key)


def tower_artifacts(run: Path, key: str) -> dict[str, str]:
    """sha256 of each file of the towers of a version, by its path in the run."""
    return _digests(run, sorted(version_towers(run, key).glob("date=*/*")))


def towers_prefix(run: Path, key: str) -> str:
    """What the paths of a version's towers begin with."""
    return f"{version_towers(run, key).relative_to(run)}/"


def day_artifacts(snapshots: dict[str, Path], raw: dict[str, Path], alignment: Path) -> dict[str, str]:
    """sha256 of the files of a day: snapshots under their entity, `raw user`, `raw pin`, `alignment` if there is one.

    Args:
        snapshots: Files of the offline store by entity.
        raw: Vectors as the towers made them, by entity.
        alignment: Map that brought them into the version's frame.
    """
    named = snapshots | {f"raw {entity}": file for entity, file in raw.items()} | {"alignment": alignment}
    return {name: sha256_of(file) for name, file in named.items() if file.is_file()}


def _digests(run: Path, files: list[Path]) -> dict[str, str]:
    return {str(file.relative_to(run)): sha256_of(file) for file in _present(files)}


def _present(files: list[Path]) -> Iterator[Path]:
    return (file for file in files if file.is_file() and not file.name.startswith("."))
