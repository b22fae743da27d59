"""Hidden files and temporary folders that a process holds while it needs them, and their removal once it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from weakref import finalize

_LEAST_AGE_S = 60.0
"""Younger ones may belong to a process that is about to hold them."""


def hold(descriptor: int) -> None:
    """Hold an open file or folder until it is closed; the kernel closes it when this process dies, however it dies."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove files and folders of a pattern that are a minute old and that nobody holds."""
    for path in folder.glob(pattern):
        # Somebody holds it, or was faster.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEAST_AGE_S:
                _remove_if_free(path)


def _remove_if_free(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(descriptor)


class HeldFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder, removed with this object; if its process was killed, by the next one made beside it.

    Args:
        parent: A folder of this project alone, where others are looked for; the system's when none is given.
    """

    def __init__(self, prefix: str, parent: Path | None) -> None:
        if parent is not None:
            remove_abandoned(parent, f"{prefix}*")
        super().__init__(prefix=prefix, dir=parent)
        descriptor = os.open(self.name, os.O_RDONLY)
        hold(descriptor)
        self._close = finalize(self, os.close, descriptor)

    def cleanup(self) -> None:
        """Remove the folder."""
        super().cleanup()
        self._close()
