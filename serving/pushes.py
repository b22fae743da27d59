"""What pushes single entities into the run of a server: made with the first push, kept for the others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.versions import Catalogue
from serving.onnx_model import load_model
from serving.settings import Settings

# Importing Feast costs seconds, so it is left until something is pushed.
if TYPE_CHECKING:
    from feature_repo.push.pusher import Pusher
    from feature_repo.push.towers import Program


class Pushes:
    """The pusher of a server; safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._making = threading.Lock()
        self._pusher: Pusher | None = None

    def pusher(self, catalogue: Catalogue) -> Pusher:
        """What pushes into the run that the catalogue is of."""
        from feature_repo.push.pusher import Pusher

        with self._making:
            if self._pusher is None:
                self._pusher = Pusher(self._settings.run, self._settings.repo_path, catalogue, _load)
            return self._pusher


def _load(file: Path, output: str) -> Program:
    # One entity is no work for several threads.
    return load_model(file, output, threads=1).run
