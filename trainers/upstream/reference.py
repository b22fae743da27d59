"""The reference frame of an embedding version: the vectors that fix its space, and the space's name."""

from __future__ import annotations

import hashlib
import shutil
from datetime import datetime
from pathlib import Path

from feature_repo.contract import ENTITIES
from trainers.upstream.aggregate import Keys, Vectors
from trainers.upstream.vector_files import read_frame
from trainers.upstream.walk import daily_file

ID_DIGITS = 12


def reference_file(folder: Path, entity: str) -> Path:
    """File of the reference frame of a version, whose folder is given."""
    return folder / "reference" / f"{entity}.parquet"


def write_reference(folder: Path, cutoff: datetime) -> str:
    """Make the raw vectors of a cut-off the version's reference frame; returns the space id."""
    for entity in ENTITIES:
        file = reference_file(folder, entity)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        shutil.copyfile(daily_file(folder, entity, cutoff), partial)
        partial.replace(file)
    return space_id(folder)


def read_reference(folder: Path, dim: int) -> dict[str, tuple[Keys, Vectors]]:
    """Keys and vectors of the reference frame."""
    return read_frame(lambda entity: reference_file(folder, entity), dim)


def space_id(folder: Path) -> str:
    """Name of a version's vector space: begins the sha256 of its reference files, so another training has another.

    Raises:
        FileNotFoundError: The version has no reference frame yet.
    """
    digest = hashlib.sha256()
    for entity in ENTITIES:
        file = reference_file(folder, entity)
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} must hold the version's reference frame (got none); run `headwater publish`"
            )
        digest.update(file.read_bytes())
    return digest.hexdigest()[:ID_DIGITS]
