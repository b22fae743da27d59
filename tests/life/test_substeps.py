"""The workspace of a day, and what kills leave of it, of backfills and of release folders."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainers.life import backfill, release_folders
from trainers.life.release_folders import write_release_folder
from trainers.life.substeps import Workspace


class Killed(BaseException):
    """Stands for a kill: nothing on the way catches it."""


def test_workspace_whose_removal_was_killed_has_no_substep_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "date=2024-01-08")
    for name in ("append", "train"):
        workspace.do(name, lambda: {"rows": 1})

    def half(folder: Path, **options: object) -> None:
        del options
        if folder.exists():
            (folder / "done" / "append.json").unlink()
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            workspace.clear()
    assert [workspace.find(name) for name in ("append", "train")] == [None, None]
    workspace.clear()
    assert list(tmp_path.iterdir()) == []


def test_release_folder_that_a_killed_process_left_goes_with_the_next_release_a_day_later(tmp_path: Path) -> None:
    old, new = tmp_path / ".11.partial", tmp_path / ".12.partial"
    for folder in (old, new):
        folder.mkdir()
        (folder / "pins.faiss").write_bytes(b"half")
    then = old.stat().st_mtime - release_folders.ABANDONED_S - 1
    os.utime(old, (then, then))

    def fail(folder: Path) -> dict[str, object]:
        raise ValueError(json.dumps(folder.name))

    with pytest.raises(ValueError, match="partial"):
        write_release_folder(tmp_path, fail)
    assert [each.name for each in tmp_path.iterdir()] == [new.name]


def test_backfill_goes_on_with_the_days_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [datetime(2024, 1, number, tzinfo=UTC) for number in (2, 3, 4)]
    home, record = cast(Any, SimpleNamespace(folder=lambda _: tmp_path)), cast(Any, SimpleNamespace(key="ctr_v1"))
    out = tmp_path / backfill.FOLDER

    def asked(missing: list[datetime], last: int) -> list[datetime]:
        monkeypatch.setattr(backfill, "missing_days", lambda *_: missing)
        return backfill.days_to_make(home, record, date(2024, 1, 2), date(2024, 1, last))

    assert asked(days, 4) == days
    (out / "checkpoint.safetensors").write_bytes(b"of the 4th")
    assert asked(days[2:], 4) == days
    assert (out / "checkpoint.safetensors").is_file()
    # A walk that went to the 4th keeps no weights of the 2nd alone.
    assert asked(days[:1], 2) == days[:1]
    assert [each.name for each in out.iterdir()] == ["period.json"]
    assert asked([], 3) == []
    assert not out.exists()
