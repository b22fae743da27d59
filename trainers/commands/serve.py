"""`headwater serve`: start the server on a run, without importing it here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.options import DebugOption, ExistingRunOption

RUN_VARIABLE = "HEADWATER_RUN"
METRICS_VARIABLE = "HEADWATER_METRICS_DIR"
HIGHEST_PORT = 65535
APP_FACTORY = "serving.app:create_app"
START_PATIENCE_S = 120
"""How long a worker process may be silent: importing Feast keeps it from answering its supervisor."""
STOP_PATIENCE_S = 30
"""How long answers in hand may take to end after SIGTERM; new requests are no longer taken."""
PortOption = Annotated[int, typer.Option("--port", metavar="N", help="Port to listen on.")]
WorkersOption = Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Processes that answer.")]
HostOption = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")]


def add_command(app: typer.Typer) -> None:
    """Add `serve`."""

    @app.command("serve")
    def serve(
        run: ExistingRunOption,
        port: PortOption = 8080,
        host: HostOption = "127.0.0.1",
        workers: WorkersOption = 1,
        debug: DebugOption = False,
    ) -> None:
        """Serve recommendations from a run over HTTP."""
        with exit_codes(debug=debug):
            if not 1 <= port <= HIGHEST_PORT:
                raise ValueError(f"port must be in 1..{HIGHEST_PORT} (got {port}); give --port another")
            _check_release(run)
            _serve(run, port=port, host=host, workers=workers, debug=debug)


def _check_release(run: Path) -> None:
    from trainers.life.operators import open_catalogue

    if open_catalogue(run).pointers().live is None:
        raise ValueError(
            f"--run must have a live release to serve (got {str(run)!r}, which has none); "
            f"run `headwater run --run {run}` to the end, or promote one: `headwater release list --run {run}`"
        )


def _serve(run: Path, *, port: int, host: str, workers: int, debug: bool) -> None:
    import uvicorn

    os.environ[RUN_VARIABLE] = str(run.resolve())
    with _shared_metrics(workers):
        uvicorn.run(
            APP_FACTORY,
            factory=True,
            host=host,
            port=port,
            workers=workers,
            timeout_worker_healthcheck=START_PATIENCE_S,
            timeout_graceful_shutdown=STOP_PATIENCE_S,
            log_level="debug" if debug else "info",
            # The server has a line per request of its own, which is off unless asked for.
            access_log=debug,
        )


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder in which several processes share their metrics, unless the caller has named one."""
    if workers == 1 or os.environ.get(METRICS_VARIABLE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="headwater-metrics-") as folder:
        os.environ[METRICS_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[METRICS_VARIABLE]
