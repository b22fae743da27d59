"""What an operator sets: environment variables with the prefix `HEADWATER_`, or keyword arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.request_log.layout import REQUEST_LOG
from serving.logs import LogFormat

AsOf = Literal["auto", "wall", "replay"] | AwareDatetime
LONGEST_DEADLINE_MS = 60_000
LEAST_TOKEN = 16
"""Characters of the shortest token that is taken."""


class Settings(BaseSettings):
    """Settings of one server process; `HEADWATER_RUN=runs/demo` is enough to start one."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", extra="forbid", frozen=True)

    run: Path
    """Run directory; holds `releases/` and `feature_repo/`, whose catalogue says which release is live."""
    release_dir: Path | None = None
    """Folder of the one release to serve, whatever the catalogue says; the live release when unset."""
    repo_dir: Path | None = None
    """Folder of the Feast repo; `feature_repo/` of the run when unset."""
    poll_ms: int = Field(default=250, ge=10, le=60_000)
    """Pause between two looks at which release is live."""
    hold: int = Field(default=2, ge=0, le=2)
    """Releases kept loaded beside those that answer, so that going live is a swap: the one that a rollback would bring
    back, then the newest candidate. Each takes the memory of its index and programs."""
    token: SecretStr | None = None
    """What write routes ask for, as `Authorization: Bearer …`; they are closed when neither this nor a file is set."""
    token_file: Path | None = None
    """File with the token, such as a mounted secret."""
    shadow_queue: int = Field(default=64, ge=1, le=10_000)
    """Requests that may wait for the shadow release; more are dropped and counted."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests that a process answers at once, each in a thread."""
    queue: int = Field(default=64, ge=0, le=10_000)
    """Requests that may wait for a thread; more are answered 429."""
    retrieve: int = Field(default=500, ge=1, le=10_000)
    """Candidates that the query tower fetches before ranking."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads that one ONNX session may use within an operator; more answer a lone request sooner, and take more CPU
    for it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of the server's own log lines."""
    log_format: LogFormat = "text"
    """How a log line is written: as `key=value` text, or as a JSON object."""
    metrics_dir: Path | None = None
    """Folder in which the processes of one server share their metrics, so that each answers for all; `headwater serve
    --workers` makes one."""
    log_requests: bool = False
    """Write a log line per request, with its id, route, status, time, release and arm."""
    deadline_ms: int = Field(default=1000, ge=1, le=LONGEST_DEADLINE_MS)
    """Milliseconds in which a request without `X-Deadline-Ms` is answered, with what is known by then."""
    cache_dir: Path | None = None
    """Folder for copies of Pin indexes, which all processes map; `headwater-<user>` where temporary files go when
    unset."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1)
    """Longest request body that is read, in bytes."""
    as_of: AsOf = "auto"
    """Moment against which TTLs count: `wall` (now), `replay` (the newest features in the store) or a fixed moment;
    `auto` replays releases that were already older than every embedding's TTL when they were made."""

    request_log: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the ranking answers that is logged with what the models read, off unless set: it holds user ids."""
    request_log_dir: Path | None = None
    """Folder of the request log; `request_log/` of the run when unset."""
    request_log_queue: int = Field(default=128, ge=1, le=100_000)
    """Answers that may wait to be logged; more are dropped and counted."""
    request_log_rows: int = Field(default=20_000, ge=1, le=10_000_000)
    """Answered Pins after which a file of the request log is written."""
    request_log_seconds: float = Field(default=60.0, gt=0.0, le=86_400.0)
    """Seconds after which a file of the request log is written, however few Pins it has."""

    @property
    def repo_path(self) -> Path:
        """Folder that holds `feature_store.yaml`."""
        return self.repo_dir or self.run / "feature_repo"

    @property
    def request_log_path(self) -> Path:
        """Folder of the request log."""
        return self.request_log_dir or self.run / REQUEST_LOG

    def write_token(self) -> str | None:
        """Token of the write routes; none when they are closed.

        Raises:
            ValueError: The token is too short, or its file cannot be read.
        """
        if self.token is None and self.token_file is None:
            return None
        token = self.token.get_secret_value() if self.token else _read(self.token_file)
        if len(token) < LEAST_TOKEN:
            raise ValueError(
                f"the token must have at least {LEAST_TOKEN} characters (got {len(token)}); "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return token


def _read(file: Path | None) -> str:
    assert file is not None
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ValueError(f"token_file must be readable (got {file}: {error.strerror}); mount it or unset it") from error
