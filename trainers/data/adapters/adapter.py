"""What every built-in dataset offers: a declaration, and staged tables with canonical columns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from trainers.data.dataset import DatasetSpec
from trainers.data.ingest import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterOptions:
    """What a run may ask of a dataset; an adapter ignores what doesn't apply to it."""

    path: Path | None = None
    """Folder of the source files, for data that no package registry holds."""
    seed: int = 0
    """Seed of everything random: generation, sampling of impressions, choice of users."""
    scale: float = 1.0
    """Share of users kept, above 0 and at most 1, chosen by a seeded hash of the user."""
    since: datetime | None = None
    """Events from this moment on are wanted, those before it need not be staged; none for all of them."""
    num_users: int = 2000
    """Users of generated data."""
    num_pins: int = 500
    """Pins of generated data."""
    num_days: int = 14
    """Days of generated data, the time in which the last conversions arrive not counted."""

    def __post_init__(self) -> None:
        if not 0.0 < self.scale <= 1.0:
            raise ValueError(f"scale must be above 0 and at most 1 (got {self.scale}); give --scale 1 for all users")
        for name, least in (("num_users", 2), ("num_pins", 2), ("num_days", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least} (got {getattr(self, name)})")

    def required_path(self, dataset: str, files: tuple[str, ...]) -> Path:
        """The folder of the source files.

        Raises:
            ValueError: No folder was given, or one of `files` is not in it.
        """
        if self.path is None:
            raise ValueError(f"dataset {dataset} must be given its folder (got none); pass --path")
        absent = [name for name in files if not (self.path / name).exists()]
        if absent:
            raise ValueError(f"{self.path} must hold {', '.join(files)} (got no {', '.join(absent)}); check --path")
        return self.path

    def keeps(self, key: str) -> str:
        """SQL condition that keeps the `scale` share of users, the same ones on every machine.

        Args:
            key: SQL of the user's key.
        """
        if self.scale == 1.0:
            return "true"
        return f"md5_number_lower(concat('{self.seed}:', {key})) % 1000000 < {round(self.scale * 1_000_000)}"


class Adapter(Protocol):
    """Turns one public dataset into staged tables.

    The docstring of every adapter says what an impression, a click and a conversion are in its data.
    """

    name: str

    def spec(self, options: AdapterOptions) -> DatasetSpec:
        """Declaration of the dataset."""

    def stage(self, staging: Path, options: AdapterOptions, progress: Progress) -> None:
        """Write `<table>.parquet` files with canonical columns, unchecked, into an existing folder.

        Raises:
            ValueError: The source files are not there.
        """
