"""Training–serving skew: what was served, computed once more as training would have, and how the two differ.

Every logged Pin becomes an entity row at the moment that its answer was made as of. Feast's offline store joins it
point in time, the trainer's encoder makes model inputs of it, and the release's own programs score both. Whatever
differs was learned from one thing and served from another.

Dims: N answered Pins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.contract import EVENT_TIMESTAMP, join_key
from feature_repo.encoding import InputSpec, add_context
from feature_repo.release.manifest import ReleaseManifest
from feature_repo.request_log.layout import MOMENT, STATUS_PREFIX
from feature_repo.versions import Catalogue
from trainers.data.examples import encode_sides
from trainers.data.frames import point_in_time_frame
from trainers.life.operators import REPO
from trainers.life.releases import verified_release
from trainers.progress import SILENT, Progress
from trainers.request_log.differences import Difference, compared, compared_arrays
from trainers.request_log.rows import LoggedPins, RequestLogError, read_pins, releases_of
from trainers.request_log.scores import released_scores

SCORE_TOLERANCE = 1e-5
"""Largest difference of a score that is arithmetic: batches of another size add up in another order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseSkew:
    """What one release served, and what training has in its place."""

    release: str
    answers: int
    degraded: int
    """Answers that were made without what a whole one reads; not compared."""
    pins: int
    features: tuple[Difference, ...]
    """Per feature that the models read; features of the user once per answer."""
    inputs: tuple[Difference, ...]
    """Per model input, after the encoder of training."""
    scores: tuple[Difference, ...]
    """`pctr`, `pcvr`: as served, and from training's features."""
    repeated: tuple[Difference, ...]
    """The same scores from the features as they were served: what differs here is the server's own."""
    statuses: dict[str, dict[str, int]]
    """Per view, how often a served row was present, missing or outside max age."""

    def beyond(self, most: float) -> list[Difference]:
        """What differs in more than a share of the rows."""
        every = (*self.features, *self.inputs, *self.scores, *self.repeated)
        return [each for each in every if each.share > most]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        kinds = ("features", "inputs", "scores", "repeated")
        rows = {kind: [_fields(each) for each in getattr(self, kind)] for kind in kinds}
        counts = {"answers": self.answers, "degraded": self.degraded, "pins": self.pins}
        return {"release": self.release, **counts, **rows, "statuses": self.statuses}


def measured_skew(
    run: Path,
    catalogue: Catalogue,
    log: Path,
    *,
    most_answers: int,
    release: str | None = None,
    progress: Progress = SILENT,
) -> list[ReleaseSkew]:
    """Skew of every release in a request log, or of one.

    Args:
        log: Folder of the request log.
        most_answers: Answers of a release that are recomputed, taken evenly from all.

    Raises:
        RequestLogError: There are none, or a file cannot be read.
        ReleaseError: Files of a release are absent or changed.
    """
    found = releases_of(log)
    if release not in (None, *found):
        raise ValueError(f"--release must have logged answers (got {release}; they are of {', '.join(sorted(found))})")
    if release is not None:
        found = {release: found[release]}
    logged = [read_pins(name, files, most_answers) for name, files in sorted(found.items())]
    if not any(each.num_answers for each in logged):
        raise RequestLogError(f"{log} must hold whole answers with Pins (got none); serve some first")
    measured = []
    with progress.stage("recompute answers, by release", sum(each.num_answers > 0 for each in logged)) as stage:
        for each in logged:
            if each.num_answers:
                measured.append(skew_of(run, catalogue, each))
                stage.advance()
    return measured


def skew_of(run: Path, catalogue: Catalogue, logged: LoggedPins) -> ReleaseSkew:
    """Skew of one release's answers."""
    record = catalogue.release(logged.release)
    manifest = verified_release(run, record)
    trained = trained_rows(run / REPO, manifest, logged.rows)
    user = _columns((manifest.encoders.query_user, manifest.encoders.ranking_user), "user")
    pin = _columns((manifest.encoders.ranking_pin,), "pin")
    served = _with_columns(logged.rows, [*user, *pin], trained)
    once = pa.array(logged.first)
    features = [compared(name, served[name].take(once), trained[name].take(once)) for name in user]
    features += [compared(name, served[name], trained[name]) for name in pin]
    sides = (manifest.encoders.ranking_user, manifest.encoders.ranking_pin, manifest.encoders.ranking_context)
    moments = _moments(logged.rows)
    inputs = [encode_sides(sides, add_context(_at(rows, moments))) for rows in (served, trained)]
    surfaces = np.asarray(logged.rows["surface"].to_pylist(), dtype=np.str_)
    folder = run / record.folder
    scores = [released_scores(folder, manifest, each, surfaces) for each in inputs]
    return ReleaseSkew(
        release=logged.release,
        answers=logged.num_answers,
        degraded=logged.num_degraded,
        pins=logged.rows.num_rows,
        features=tuple(features),
        inputs=tuple(compared_arrays(name, inputs[0][name], inputs[1][name]) for name in inputs[0]),
        scores=tuple(_score(task, logged.rows, scores[1][task]) for task in scores[1]),
        repeated=tuple(_score(task, logged.rows, scores[0][task]) for task in scores[0]),
        statuses=_statuses(logged),
    )


def trained_rows(repo: Path, manifest: ReleaseManifest, logged: pa.Table) -> pa.Table:
    """The logged rows [N] with the features that training joins to them; those of retrieval that ranking lacks too."""
    keys = logged.select([join_key("user"), join_key("pin"), EVENT_TIMESTAMP, "surface"])
    frame = point_in_time_frame(repo, keys, manifest.services.ranking)
    if manifest.services.retrieval == manifest.services.ranking:
        return frame
    other = point_in_time_frame(repo, keys, manifest.services.retrieval)
    for name in other.column_names:
        if name not in frame.column_names:
            frame = frame.append_column(name, other[name])
    return frame


def _moments(logged: pa.Table) -> pa.Array:
    """Moment of each impression [N]: what the request said, else that of its answer's features."""
    given = (json.loads(text).get(MOMENT) if text else None for text in logged["context"].to_pylist())
    as_of = logged[EVENT_TIMESTAMP].to_pylist()
    found = [datetime.fromisoformat(text) if text else at for text, at in zip(given, as_of, strict=True)]
    return pa.array(found, pa.timestamp("us", tz="UTC"))


def _at(rows: pa.Table, moments: pa.Array) -> pa.Table:
    """The rows with their context's moments in place of those of their features."""
    return rows.set_column(rows.column_names.index(EVENT_TIMESTAMP), EVENT_TIMESTAMP, moments)


def _with_columns(served: pa.Table, columns: Sequence[str], trained: pa.Table) -> pa.Table:
    """The served rows with every feature of the release: one that no logged row has had a value of is null."""
    for name in columns:
        if name not in served.column_names:
            served = served.append_column(name, pa.nulls(served.num_rows, trained.schema.field(name).type))
    return served


def _columns(specs: Iterable[InputSpec], entity: str) -> list[str]:
    found = dict.fromkeys(column for spec in specs for column in spec.columns())
    return [column for column in found if column != join_key(entity)]


def _score(task: str, logged: pa.Table, again: np.ndarray[Any, Any]) -> Difference:
    return compared(task, logged[task], pa.chunked_array([pa.array(again)]), SCORE_TOLERANCE)


def _statuses(logged: LoggedPins) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name in logged.rows.column_names:
        if name.startswith(STATUS_PREFIX):
            view = name.removeprefix(STATUS_PREFIX)
            column = logged.rows[name].take(pa.array(logged.first)) if view.startswith("user_") else logged.rows[name]
            counts = {each["values"]: each["counts"] for each in column.drop_null().value_counts().to_pylist()}
            found[view] = counts
    return found


def _fields(difference: Difference) -> dict[str, Any]:
    return {**dataclasses.asdict(difference), "share": difference.share}
