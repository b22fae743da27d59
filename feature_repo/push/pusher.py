"""Single entities get a vector from the current towers, online and offline, without waiting for the next day.

A pushed vector is what the next day's would be if the towers stayed: the entity's vector in the newest snapshot weighs
as much as in the daily moving average, and the towers' answer to what is known now the rest. So a push that is
repeated gives the same vector again, however often.

Dims: N entities.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import (
    CREATED_TIMESTAMP,
    DATA_CUTOFF_FIELD,
    EMBEDDING_FIELD,
    EVENT_TIMESTAMP,
    RepoManifest,
    attributes_view,
    embedding_view,
    join_key,
)
from feature_repo.encoding import encode
from feature_repo.layout import open_store
from feature_repo.push.attributes import (
    Attributes,
    attribute_columns,
    check_attributes,
    overlaid,
    said,
    unseen_values,
)
from feature_repo.push.entities import check_entities
from feature_repo.push.entity_inputs import MICROS, EntityRows, InputReader
from feature_repo.push.errors import NoInputsError, PushError
from feature_repo.push.ledger import note_pins
from feature_repo.push.loaded import LoadedTowers, Towers
from feature_repo.push.records import Pushed, PushedVersion
from feature_repo.push.targets import Target, chosen_versions, moment_of_push, target_at
from feature_repo.push.towers import LoadProgram
from feature_repo.push.turns import taking_turns
from feature_repo.push.vectors import averaged, checked, vector_column
from feature_repo.push.writer import RowWriter
from feature_repo.versions import Catalogue, VersionRecord

logger = logging.getLogger(__name__)

LOCK_FILE = ".push.lock"

Clock = Callable[[], datetime]
"""Tells the moment, UTC."""


def utc_now() -> datetime:
    """This moment by the wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of every version."""

    manifest: RepoManifest
    entity: str
    ids: tuple[int, ...]
    attributes: Attributes
    moment: datetime
    is_past: bool
    """Whether inputs are read as they were at the moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Computed:
    """A version's rows that wait to be written."""

    target: Target
    towers: Towers
    known: pa.Table
    """What was read of the entities."""
    rows: pa.Table
    continued: int
    unseen: Mapping[str, int]


class Pusher:
    """Pushes into one run, from any thread and process; keeps towers and readers between pushes."""

    def __init__(self, run: Path, repo_dir: Path, catalogue: Catalogue, load_program: LoadProgram) -> None:
        self._repo_dir, self._catalogue = repo_dir, catalogue
        self._store = open_store(repo_dir)
        self._towers = LoadedTowers(run, load_program)
        self._readers: dict[tuple[str, str, RepoManifest], InputReader] = {}
        self._writers: dict[RepoManifest, RowWriter] = {}

    def push(
        self,
        entity: str,
        ids: Sequence[int],
        attributes: Attributes | None = None,
        *,
        keys: Sequence[str] = (),
        event_timestamp: datetime | None = None,
        clock: Clock = utc_now,
        starting: Callable[[datetime], None] | None = None,
        dry_run: bool = False,
    ) -> Pushed:
        """Compute and write the vectors of some entities.

        Everything is computed and checked before anything is written. Pushes into one run take turns, so that of two
        that tell different attributes of an entity neither is lost.

        Args:
            attributes: What is known of the entities now; written too, and laid over what was known.
            keys: Versions to push to; those that are candidate, live, or superseded and still read when none is given.
            event_timestamp: Moment that the push is of, where it is not now: inputs are read as they were then, and
                the same push again changes nothing.
            clock: Tells the moment of a push that names none.
            starting: Told the rows' event_timestamp before the first is written.
            dry_run: Do everything but write.

        Raises:
            PushError: It cannot be done as asked; nothing was written.
            UnknownSubjectError: There is no such version.
            OnlineStoreUnavailableError: The online store does not answer.
            OSError: The offline store cannot be written; nothing went online.
        """
        started, spoken = time.perf_counter(), said(attributes or {})
        manifest = RepoManifest.load(self._repo_dir / "data")
        check_entities(entity, ids)
        check_attributes(manifest, entity, ids, spoken)
        records = chosen_versions(self._catalogue, keys)
        # Loaded before the turn is taken: it may take longer than everything else.
        delay = self._towers.publish_delay(records[0])
        with nullcontext() if dry_run else taking_turns(self._repo_dir / "data" / LOCK_FILE):
            moment = self._moment(records, delay, clock(), event_timestamp)
            request = _Request(manifest, entity, tuple(ids), spoken, moment, is_past=event_timestamp is not None)
            computed = [self._compute(request, record) for record in records]
            if starting is not None:
                starting(moment)
            written = {} if dry_run else self._write(request, computed)
        pushed = _pushed(request, computed, written, time.perf_counter() - started)
        _log(pushed, dry_run)
        return pushed

    def warm_up(self) -> None:
        """Load the towers of every version that a push would go to.

        Raises:
            PushError: There is no version, or one has no towers.
        """
        for record in chosen_versions(self._catalogue, ()):
            self._towers.publish_delay(record)

    def _moment(
        self, records: Sequence[VersionRecord], delay: timedelta, now: datetime, given: datetime | None
    ) -> datetime:
        if given is None:
            return moment_of_push(self._catalogue, records, delay, now)
        if given.tzinfo is None or given > now:
            raise PushError(
                f"event_timestamp must have a time zone and be past (got {given.isoformat()}, now is "
                f"{now.isoformat()}); a row from the future would hide what comes before it"
            )
        return given.astimezone(UTC)

    def _write(self, request: _Request, computed: Sequence[_Computed]) -> dict[str, int | None]:
        tables = _attribute_table(request, computed[0].known) | {_view(request, each): each.rows for each in computed}
        written = self._writers[request.manifest].write(tables, request.moment)
        if request.entity == "pin":
            note_pins(self._repo_dir / "data", request.ids, request.moment)
        return written

    def _compute(self, request: _Request, record: VersionRecord) -> _Computed:
        """Vectors of the entities in one version's space, as rows of its view."""
        target = target_at(self._catalogue, record, self._towers.publish_delay(record), request.moment)
        towers, reader = self._towers.of(target), self._reader(request, target)
        read = reader.offline if request.is_past else reader.online
        found = read(request.ids, request.moment)
        features = overlaid(request.manifest, request.entity, request.ids, request.attributes, found.features)
        _check_known(request, found, features)
        program = towers.manifest.program(request.entity)
        subject = f"{request.entity} vectors of {record.key}"
        answer = checked(towers.programs[request.entity](encode(program.encoder, features)), record.dim, subject)
        past = _past(request, target, found, reader)
        vectors, continued = averaged(answer, past, towers.manifest.average_weight)
        rows = _rows(request, vector_column(vectors), _data_cutoffs(found, target, towers))
        return _Computed(
            target=target,
            towers=towers,
            known=found.features,
            rows=rows,
            continued=continued,
            unseen=unseen_values(program.encoder, request.entity, request.attributes),
        )

    def _reader(self, request: _Request, target: Target) -> InputReader:
        name = (request.entity, target.record.key, request.manifest)
        if name not in self._readers:
            # The version may be newer than what the registry was last asked.
            self._store.refresh_registry()
            self._writers[request.manifest] = RowWriter(self._store)
            self._readers[name] = InputReader(self._store, request.manifest, request.entity, target.version)
        return self._readers[name]


def _check_known(request: _Request, found: EntityRows, features: pa.Table) -> None:
    """Refuse entities of which nothing is known: their vector would be that of nobody, and look like somebody's."""
    view = attributes_view(request.entity)
    known = found.activity_at.is_valid()
    for name in features.column_names:
        if name.startswith(f"{view}__"):
            known = pc.or_(known, features[name].combine_chunks().is_valid())
    nobody = [key for key, is_known in zip(request.ids, known.to_pylist(), strict=True) if not is_known]
    if nobody:
        raise NoInputsError(
            f"a pushed {request.entity} must have activity or attributes at {request.moment:%Y-%m-%d %H:%M:%S} (got "
            f"neither for {join_key(request.entity)} {', '.join(map(str, nobody[:5]))}"
            f"{f' and {len(nobody) - 5} more' if len(nobody) > 5 else ''}); give its attributes"
        )


def _past(request: _Request, target: Target, found: EntityRows, reader: InputReader) -> pa.Array:
    """Vector of each entity in the snapshot of the day that is continued; null where it has none.

    The online row is that vector unless the entity was pushed since, or the push is of a moment before now.
    """
    of_day = pc.fill_null(pc.equal(found.vectors_at.cast(MICROS), pa.scalar(target.usable_from, MICROS)), False)
    pushed_since = pc.and_(found.vectors_at.is_valid(), pc.invert(of_day))
    if request.is_past or not target.is_newest or pc.any(pushed_since).as_py():
        return reader.vectors_of_day(request.ids, target.usable_from, target.cutoff)
    return pc.if_else(of_day, found.vectors, pa.scalar(None, found.vectors.type))


def _data_cutoffs(found: EntityRows, target: Target, towers: Towers) -> pa.Array:
    """Last moment that snapshot, towers or activity could see; attributes say themselves from when they hold."""
    # As numbers, because Arrow has no maximum of times.
    of_activity = pc.subtract(found.activity_at.cast(MICROS), pa.scalar(towers.manifest.publish_delay)).cast(MICROS)
    latest = pc.max_element_wise(of_activity.cast(pa.int64()), pa.scalar(target.cutoff, MICROS).cast(pa.int64()))
    return latest.cast(MICROS)


def _rows(request: _Request, vectors: pa.Array, cutoffs: pa.Array) -> pa.Table:
    return pa.table({EMBEDDING_FIELD: vectors, DATA_CUTOFF_FIELD: cutoffs} | _stamps(request, request.ids))


def _stamps(request: _Request, ids: Sequence[int]) -> dict[str, pa.Array]:
    return {
        join_key(request.entity): pa.array(ids, pa.int64()),
        EVENT_TIMESTAMP: pa.repeat(pa.scalar(request.moment, MICROS), len(ids)),
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(datetime.now(UTC), MICROS), len(ids)),
    }


def _attribute_table(request: _Request, known: pa.Table) -> dict[str, pa.Table]:
    """Rows of the attribute view of those entities that attributes are given of."""
    ids = [key for key in request.ids if request.attributes.get(key)]
    if not ids:
        return {}
    columns = attribute_columns(request.manifest, request.entity, request.ids, request.attributes, known)
    return {attributes_view(request.entity): pa.table(columns | _stamps(request, ids))}


def _view(request: _Request, computed: _Computed) -> str:
    return embedding_view(request.entity, computed.target.record.model, computed.target.record.version)


def _pushed(
    request: _Request, computed: Sequence[_Computed], written: Mapping[str, int | None], seconds: float
) -> Pushed:
    versions = []
    for each in computed:
        num_written = written.get(_view(request, each))
        versions.append(
            PushedVersion(
                version=each.target.record.key,
                view=_view(request, each),
                space_id=each.towers.manifest.space_id,
                towers=each.towers.manifest.cutoff,
                continued=each.continued,
                newer_kept=None if num_written is None else len(request.ids) - num_written,
                unseen=each.unseen,
            )
        )
    return Pushed(
        entity=request.entity,
        ids=request.ids,
        event_timestamp=request.moment,
        attributes=sum(1 for key in request.ids if request.attributes.get(key)),
        versions=tuple(versions),
        seconds=round(seconds, 4),
    )


def _log(pushed: Pushed, dry_run: bool) -> None:
    keys = ",".join(each.version for each in pushed.versions)
    logger.info(
        "event=%s entity=%s ids=%d versions=%s seconds=%.3f",
        "push_tried" if dry_run else "pushed",
        pushed.entity,
        len(pushed.ids),
        keys,
        pushed.seconds,
    )
