"""The towers of an embedding version as programs: what a trainer leaves, and what a push computes vectors with.

`upstream/<version>/towers/date=YYYY-MM-DD/` holds `user_tower.onnx`, `pin_tower.onnx` and `manifest.json`. The programs
end in the version's frame: alignment, maps to an older space and unit length are inside.

Dims: N rows, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from feature_repo.contract import ENTITIES, MANIFEST_FILE
from feature_repo.encoding import Array
from feature_repo.push.errors import TowersError
from feature_repo.release.files import sha256_of
from feature_repo.release.manifest import FileName, Part, Sha256, SpaceId, Spec

TOWERS, VERSIONS = "towers", "upstream"
"""Folder of a version's towers, and the folder of a run that holds a folder per version."""
OUTPUT = "vector"
"""Output [N, E] of every program."""
PREPARE = "headwater push --prepare"
"""Command that exports towers."""

Program = Callable[[dict[str, Array]], Array]
"""Named inputs of N rows to vectors [N, E]."""
LoadProgram = Callable[[Path, str], Program]
"""A file and the name of its output to the program."""


class TowerProgram(Part):
    """One tower."""

    file: FileName
    sha256: Sha256
    encoder: Spec
    """Feature columns to the program's inputs."""


class TowersManifest(Part):
    """The towers of one day of a version."""

    format: Literal[1] = 1
    version: str
    """Key of the embedding version."""
    space_id: SpaceId
    dim: int = Field(ge=1)
    """Width of the vectors, E."""
    cutoff: AwareDatetime
    """Data cut-off of the weights."""
    publish_delay_s: float = Field(ge=0.0)
    """Time from a cut-off to the moment its vectors may be used."""
    average_weight: Annotated[float, Field(ge=0.0, lt=1.0)]
    """Weight of the past in the moving average."""
    alignment: str
    """How the day's vectors come into the version's frame: kind of the map that is inside the programs."""
    through: str | None = None
    """Key of the newer version whose towers these are, mapped back; none where they are the version's own."""
    user: TowerProgram
    pin: TowerProgram

    @property
    def publish_delay(self) -> timedelta:
        """Time from a cut-off to the moment its vectors may be used."""
        return timedelta(seconds=self.publish_delay_s)

    def program(self, entity: str) -> TowerProgram:
        """The tower of an entity."""
        return self.user if entity == "user" else self.pin


def version_towers(run: Path, key: str) -> Path:
    """Folder with the towers of a version, a folder a day."""
    return run / VERSIONS / key / TOWERS


def towers_folder(run: Path, key: str, cutoff: datetime) -> Path:
    """Folder of the towers of a version's day."""
    return version_towers(run, key) / f"date={cutoff:%Y-%m-%d}"


def newest_towers(run: Path, key: str, until: datetime) -> Path:
    """Folder of the newest towers whose day is visible.

    Raises:
        TowersError: There are none.
    """
    days = sorted(version_towers(run, key).glob("date=*"))
    known = [day for day in days if day.name <= f"date={until:%Y-%m-%d}" and (day / MANIFEST_FILE).is_file()]
    if not known:
        raise TowersError(
            f"version {key} must have exported towers to compute a vector with (got none under "
            f"{version_towers(run, key)}); run `{PREPARE} --run {run}`"
        )
    return known[-1]


def load_manifest(folder: Path) -> TowersManifest:
    """The towers of a day.

    Raises:
        TowersError: They are not whole, or were changed.
    """
    try:
        manifest = TowersManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise TowersError(f"{folder} must hold whole towers (got: {error}); run `{PREPARE}` again") from error
    for entity in ENTITIES:
        program = manifest.program(entity)
        path = folder / program.file
        if not path.is_file() or sha256_of(path) != program.sha256:
            raise TowersError(
                f"{path} must be as it was exported (got another file, or none); delete {folder} and "
                f"run `{PREPARE}` again"
            )
    return manifest
