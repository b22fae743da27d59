"""What an operator sets: environment variables with the prefix `HEADWATER_`, or keyword arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

AsOf = Literal["auto", "wall", "replay"] | AwareDatetime


class Settings(BaseSettings):
    """Settings of one server process; `HEADWATER_RUN=runs/demo` is enough to start one."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", extra="forbid", frozen=True)

    run: Path
    """Run directory; holds `release/` and `feature_repo/`."""
    release_dir: Path | None = None
    """Folder of the release; `release/` of the run when unset."""
    repo_dir: Path | None = None
    """Folder of the Feast repo; `feature_repo/` of the run when unset."""
    retrieve: int = Field(default=500, ge=1, le=10_000)
    """Candidates that the query tower fetches before ranking."""
    threads: int = Field(default=2, ge=1, le=256)
    """Threads that one ONNX session may use within an operator."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1)
    """Longest request body that is read, in bytes."""
    as_of: AsOf = "auto"
    """Moment against which TTLs count: `wall` (now), `replay` (the newest features in the store) or a fixed moment;
    `auto` replays releases that were already older than every embedding's TTL when they were made."""

    @property
    def release_path(self) -> Path:
        """Folder that holds the release's manifest."""
        return self.release_dir or self.run / "release"

    @property
    def repo_path(self) -> Path:
        """Folder that holds `feature_store.yaml`."""
        return self.repo_dir or self.run / "feature_repo"
