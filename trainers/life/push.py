"""Pushes of a file into a run: checked whole, then written in chunks, each once, also where a kill came in between."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from feature_repo.contract import MANIFEST_FILE, write_atomically
from feature_repo.encoding import Array
from feature_repo.push.errors import PushError
from feature_repo.push.pusher import Pusher
from feature_repo.push.records import Pushed, PushedVersion
from feature_repo.push.targets import PUSHABLE, chosen_versions
from feature_repo.push.towers import Program, load_manifest, towers_folder, version_towers
from feature_repo.push.turns import taking_turns
from feature_repo.versions import VersionRecord
from trainers.life.artifacts import tower_artifacts, towers_prefix
from trainers.life.home import Home
from trainers.life.operators import operator
from trainers.life.push_rows import RowFile
from trainers.progress import Progress

EXPORT_LOCK = ".towers.lock"
JOURNALS = "pushes"
"""Folder of a run with a file per push under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """How far the push of a file has come; it lies in a file that is gone once the push is done."""

    file: Path
    chunk: int
    """Number of the chunk that is written, from 0."""
    event_timestamp: datetime | None
    """Of its rows; none before anything is written."""

    def note(self, chunk: int, event_timestamp: datetime) -> None:
        """Tell a later process what is written from here on."""
        text = json.dumps({"chunk": chunk, "event_timestamp": event_timestamp.isoformat()})
        write_atomically(self.file, text + "\n")


def prepare(home: Home, keys: Sequence[str], progress: Progress) -> list[Path]:
    """Export the towers of versions that lack those of their newest day; returns their folders.

    Raises:
        TowersError: A version's weights are not those of its newest visible day, because a refresh is under way.
    """
    return _export(home, chosen_versions(home.catalogue, keys), progress, operator())


def lacking_towers(home: Home, keys: Sequence[str]) -> list[str]:
    """Keys of the versions whose towers would be exported first."""
    return [record.key for record in chosen_versions(home.catalogue, keys) if not _is_current(home, record)]


def follow_refresh(home: Home, progress: Progress) -> list[Path]:
    """Export the towers of a refreshed day, of versions that have been pushed to: the others need none."""
    records = home.catalogue.versions(states=PUSHABLE)
    pushed = [each for each in records if version_towers(home.run, each.key).is_dir()]
    return _export(home, pushed, progress, "refresh")


def _export(home: Home, records: Sequence[VersionRecord], progress: Progress, who: str) -> list[Path]:
    if all(_is_current(home, record) and _is_recorded(home, record) for record in records):
        return []
    # Brings torch along, which takes seconds to import; towers that are there need none.
    from trainers.life.push_towers import export_towers

    with taking_turns(home.repo_dir / "data" / EXPORT_LOCK):
        # Another process may have been at it meanwhile.
        lacking = [record for record in records if not _is_current(home, record)]
        folders = export_towers(home, lacking, progress) if lacking else []
        for record in records:
            _record(home, record.key, who)
    return folders


def _record(home: Home, key: str, who: str) -> None:
    """Tell the catalogue what the towers of a version are, also those that a killed process left."""
    digests, prefix = tower_artifacts(home.run, key), towers_prefix(home.run, key)
    why = "towers for pushes"
    home.catalogue.update_version(key, artifacts=digests, artifacts_under=prefix, who=who, why=why)


def _is_current(home: Home, record: VersionRecord) -> bool:
    folder = towers_folder(home.run, record.key, home.newest_day(record.key).cutoff)
    if not (folder / MANIFEST_FILE).is_file():
        return False
    manifest = load_manifest(folder)
    return manifest.space_id == record.space_id and manifest.through == record.served_through


def _is_recorded(home: Home, record: VersionRecord) -> bool:
    """Whether the catalogue knows the towers of the newest day; a kill may have come in between."""
    folder = towers_folder(home.run, record.key, home.newest_day(record.key).cutoff)
    return str((folder / MANIFEST_FILE).relative_to(home.run)) in record.artifacts


def pusher_of(home: Home) -> Pusher:
    """What pushes into a run."""
    return Pusher(home.run, home.repo_dir, home.catalogue, load_program)


def load_program(file: Path, output: str) -> Program:
    """A tower as a function of its inputs; it ignores those that it does not read."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: dict[str, Array]) -> Array:
        (vectors,) = session.run([output], {name: inputs[name] for name in names})
        found: Array = vectors
        return found

    return run


def push_file(
    home: Home,
    rows: RowFile,
    keys: Sequence[str],
    progress: Progress,
    *,
    event_timestamp: datetime | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Push every row of a file; the same command after a kill goes on with the chunk that it cut short.

    Args:
        keys: Versions to push to; see `Pusher.push`.
        event_timestamp: Moment that the push is of, where it is not now.
        dry_run: Write nothing; vectors are computed where the towers are there.

    Returns:
        Figures of the whole push; of a dry run without towers those of the rows, and whose `towers` are lacking.

    Raises:
        PushError: A row is wrong, or the push cannot be done; of a wrong file nothing is written.
    """
    started = time.perf_counter()
    with progress.stage("check rows"):
        total = rows.check()
    if not dry_run:
        prepare(home, keys, progress)
    elif lacking := lacking_towers(home, keys):
        return {"entity": rows.entity, "rows": total, "towers": lacking}
    pusher, done = pusher_of(home), []
    with (
        _journal(home.run, rows, keys, event_timestamp, keep=not dry_run) as journal,
        progress.stage(f"push {rows.entity}s", total) as stage,
    ):
        for number, chunk in enumerate(rows.chunks()):
            if number >= journal.chunk:
                # A chunk that a kill cut short is written again, as it was at its moment.
                noted = journal.event_timestamp if number == journal.chunk else None
                moment, starting = event_timestamp or noted, None if dry_run else partial(journal.note, number)
                content = rows.entity, chunk.ids, chunk.attributes
                done.append(
                    pusher.push(*content, keys=keys, event_timestamp=moment, starting=starting, dry_run=dry_run)
                )
            stage.advance(len(chunk.ids))
    return _summed(done) | {"rows": total, "seconds": round(time.perf_counter() - started, 4)}


@contextmanager
def _journal(
    run: Path, rows: RowFile, keys: Sequence[str], event_timestamp: datetime | None, *, keep: bool
) -> Iterator[Journal]:
    """The journal of this very push, and nobody else at it; a push that is done leaves none."""
    asked = json.dumps([rows.entity, sorted(keys), event_timestamp.isoformat() if event_timestamp else None])
    name = hashlib.sha256(asked.encode() + _digest(rows.path)).hexdigest()[:16]
    file = run / JOURNALS / f"{name}.json"
    if not keep:
        yield Journal(file=file, chunk=0, event_timestamp=None)
        return
    file.parent.mkdir(exist_ok=True)
    with file.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PushError(f"{rows.shown} must be pushed once at a time (another process pushes it); wait") from error
        yield _read(file)
        file.unlink(missing_ok=True)
        file.with_suffix(".lock").unlink(missing_ok=True)


def _read(file: Path) -> Journal:
    if not file.is_file():
        return Journal(file=file, chunk=0, event_timestamp=None)
    told = json.loads(file.read_text())
    moment = datetime.fromisoformat(told["event_timestamp"]).astimezone(UTC)
    return Journal(file=file, chunk=int(told["chunk"]), event_timestamp=moment)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _summed(done: Sequence[Pushed]) -> dict[str, Any]:
    """Figures of all chunks, added up; the event_timestamp is the last one's."""
    last = done[-1].to_dict()
    versions = [_version([each.versions[place] for each in done]) for place in range(len(done[-1].versions))]
    return last | {"attributes": sum(each.attributes for each in done), "versions": versions}


def _version(parts: Sequence[PushedVersion]) -> dict[str, Any]:
    kept = [each.newer_kept for each in parts]
    names = {name for each in parts for name in each.unseen}
    return parts[-1].to_dict() | {
        "continued": sum(each.continued for each in parts),
        "newer_kept": None if None in kept else sum(number or 0 for number in kept),
        "unseen": {name: sum(each.unseen.get(name, 0) for each in parts) for name in sorted(names)},
    }
