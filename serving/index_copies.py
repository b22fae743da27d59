"""An index as a file of the server's own, mapped into memory by all of its processes.

Mapped memory of a file that someone else truncates ends the process that reads it. So what is mapped is a copy that
only servers of this user know, named by its digest and verified as it is: processes share its pages, and what happens
to the release's folder afterwards does not matter. A copy that no process holds any more is removed by the next load.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from weakref import finalize

from feature_repo.release.files import sha256_of
from feature_repo.release.manifest import ReleaseError

logger = logging.getLogger(__name__)

_SUFFIX = ".index"


def default_folder() -> Path:
    """Folder of the copies unless the operator names one."""
    return Path(tempfile.gettempdir()) / f"headwater-{os.getuid()}"


class IndexCopy:
    """A verified copy of an index, which stays as long as something holds this."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._close = finalize(self, os.close, lock)


def index_copy(source: Path, sha256: str, folder: Path) -> IndexCopy:
    """The copy of an index; made if there is none, or one that is not what it should be.

    Raises:
        ReleaseError: The index itself has another digest.
        OSError: The copy cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} must belong to the user of the server; set HEADWATER_CACHE_DIR")
    _sweep(folder, keep=sha256)
    path = folder / f"{sha256}{_SUFFIX}"
    held = _held(path, sha256)
    if held is None:
        _copy(source, path, sha256)
        held = _held(path, sha256)
    if held is None:
        raise OSError(f"{path} must stay as it was written (it did not)")
    return held


def _held(path: Path, sha256: str) -> IndexCopy | None:
    """The copy, locked against removal; None where there is none, or another file in its place."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), path.stat()) and sha256_of(path) == sha256:
            return IndexCopy(path, lock)
    os.close(lock)
    return None


def _copy(source: Path, path: Path, sha256: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with source.open("rb") as read, partial.open("wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
        partial.chmod(0o400)
        with partial.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != sha256:
            raise ReleaseError(f"{source} must have sha256 {sha256} (got {got}); restore it or make the release again")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sweep(folder: Path, keep: str) -> None:
    """Remove copies that no process holds."""
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.name == f"{keep}{_SUFFIX}":
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                logger.info("event=index_copy_removed file=%s", path.name)
            finally:
                os.close(lock)
