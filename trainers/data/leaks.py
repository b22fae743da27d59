"""Checks that no training frame knows the future.

What is caught: a row joined to a value from after it; a snapshot stamped before it could be published; a feature
that all but equals a label; a feature computed from the very labels it is to predict; fixed attributes that tell more
about later label rates than the earlier rates do, as averages over the whole period do.
What is not: a leak smaller than the luck in the label rates; one through a combination of features, when each alone
is innocent; a leak in vectors, lists or strings; an early count, where its rate was not leaked too. A table whose
origin is unknown is best left out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_repo.contract import (
    DATA_CUTOFF_FIELD,
    ENTITIES,
    EVENT_TIMESTAMP,
    RepoManifest,
    activity_view,
    attributes_view,
    consumer_services,
    feature_reference,
    join_key,
    snapshot_folder,
)
from trainers.data.leak_statistics import Floats, noise_excess, outlook_excess, roc_auc

logger = logging.getLogger(__name__)

AUC_BOUND = 0.98
"""A single feature that ranks a label this well, either way round, is taken for the label."""
_MIN_CLASS = 20
_MAX_ROWS = 200_000
_MIN_GROUP_ROWS = 10
_NOISE_MARGIN = 0.05
_NOISE_DEVIATIONS = 4.0
_OUTLOOK_FLOOR = 0.3


class LeakError(ValueError):
    """A feature knows the future; `findings` says which and by what figure."""

    def __init__(self, findings: Sequence[LeakFinding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(finding.text for finding in findings))


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakFinding:
    """One reason to believe that a view knows the future."""

    check: str
    """`stamp`, `join`, `label_copy`, `label_luck` or `outlook`."""
    view: str
    feature: str
    """Empty when the whole view is meant."""
    figure: float
    text: str
    """What must hold, what was got, what to do."""


def leak_check(
    repo: Path,
    frame: pa.Table,
    service: str,
    labels: Sequence[str],
    publish_delay: timedelta,
    *,
    trusted: Collection[str] = (),
    sample_rows: int = 200,
    seed: int = 0,
) -> list[LeakFinding]:
    """Everything suspicious about a frame of `point_in_time_frame`; empty when nothing is.

    Args:
        frame: Join keys, `event_timestamp`, label columns and the service's `view__feature` columns.
        labels: 0/1 label columns of the frame.
        publish_delay: Time from a data cut-off to the moment its rows may be used.
        trusted: Views whose origin was looked up: they may tell more about later labels than earlier labels do.
        sample_rows: Rows whose joins are recomputed.
    """
    views = consumer_services(RepoManifest.load(repo / "data"))[service].views
    findings = [finding for view in views for finding in check_stamps(repo, view, publish_delay)]
    chosen = np.random.default_rng(seed).permutation(frame.num_rows)[:sample_rows]
    findings += [finding for view in views for finding in check_joins(repo, frame.take(np.sort(chosen)), view)]
    return findings + check_labels(frame, labels, trusted=trusted, seed=seed)


def assert_no_leak(
    repo: Path,
    frame: pa.Table,
    service: str,
    labels: Sequence[str],
    publish_delay: timedelta,
    *,
    trusted: Collection[str] = (),
) -> None:
    """Stop before a model learns from the future; arguments as in `leak_check`.

    Raises:
        LeakError: Names view, feature and figure of everything found.
    """
    findings = leak_check(repo, frame, service, labels, publish_delay, trusted=trusted)
    if findings:
        raise LeakError(findings)
    logger.info("leak_check=passed service=%s rows=%d labels=%s", service, frame.num_rows, ",".join(labels))


def check_stamps(
    repo: Path, view: str, publish_delay: timedelta, *, since: datetime | None = None
) -> list[LeakFinding]:
    """Rows that claim to be usable before their own data cut-off plus the publish delay.

    Activity views, which have no `data_cutoff`, are held to the day in the name of each snapshot file.

    Args:
        since: Oldest daily snapshot that is looked at; all are when not given.
    """
    if view not in map(activity_view, ENTITIES) and "_embedding_" not in view:
        return []
    findings = []
    for fragment in _snapshots(repo, view, since).get_fragments():
        has_cutoff = DATA_CUTOFF_FIELD in fragment.physical_schema.names
        table = fragment.to_table(columns=[EVENT_TIMESTAMP, *([DATA_CUTOFF_FIELD] if has_cutoff else [])])
        cutoffs = table[DATA_CUTOFF_FIELD] if has_cutoff else _file_day(Path(fragment.path))
        if cutoffs is None:
            continue
        waited = pc.min(pc.subtract(table[EVENT_TIMESTAMP], cutoffs).cast(pa.int64())).as_py()
        if waited is not None and (soonest := timedelta(microseconds=waited)) < publish_delay:
            findings.append(_stamp_finding(view, fragment.path, soonest, publish_delay, has_cutoff))
    return findings


def _file_day(path: Path) -> pa.Scalar | None:
    if not path.stem.startswith("date="):
        return None
    day = datetime.fromisoformat(path.stem.removeprefix("date=")).replace(tzinfo=UTC)
    return pa.scalar(day, pa.timestamp("us", tz="UTC"))


def _stamp_finding(view: str, path: str, soonest: timedelta, delay: timedelta, has_cutoff: bool) -> LeakFinding:
    name = DATA_CUTOFF_FIELD if has_cutoff else ""
    return LeakFinding(
        check="stamp",
        view=view,
        feature=name,
        figure=soonest.total_seconds(),
        text=(
            f"{view}: event_timestamp must be at least {delay} after {name or 'the day of the snapshot'} "
            f"(got {soonest} in {Path(path).name}); rebuild that snapshot"
        ),
    )


def check_joins(repo: Path, frame: pa.Table, view: str, *, since: datetime | None = None) -> list[LeakFinding]:
    """Rows whose values are not those of the newest feature row at their time, found again without any join.

    TTL is left to the frame: a null is accepted where an older row exists, a value never where none does.

    Args:
        since: Oldest daily snapshot that is looked at, no younger than what the view's TTL lets the frame read; all
            are when not given.
    """
    entity = next(entity for entity in ENTITIES if view.startswith(f"{entity}_"))
    key = join_key(entity)
    prefix = feature_reference(view, "")
    names = [name.removeprefix(prefix) for name in frame.column_names if name.startswith(prefix)]
    known = _snapshots(repo, view, since).to_table(filter=pc.field(key).isin(pc.unique(frame[key])))
    history = known.sort_by([(EVENT_TIMESTAMP, "ascending"), ("created_timestamp", "ascending")]).to_pylist()
    wanted = frame.select([key, EVENT_TIMESTAMP, *(prefix + name for name in names)]).to_pylist()
    for row in wanted:
        usable = [past for past in history if past[key] == row[key] and past[EVENT_TIMESTAMP] <= row[EVENT_TIMESTAMP]]
        for name in names:
            got = row[prefix + name]
            newest = [past for past in usable if past[EVENT_TIMESTAMP] == usable[-1][EVENT_TIMESTAMP]]
            if got is not None and not any(_same(got, past[name]) for past in newest):
                return [_join_finding(view, name, row, key, got)]
    return []


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return bool(np.isclose(one, other, equal_nan=True))
    return one == other


def _join_finding(view: str, name: str, row: dict[str, object], key: str, got: object) -> LeakFinding:
    return LeakFinding(
        check="join",
        view=view,
        feature=name,
        figure=1.0,
        text=(
            f"{view}.{name} of {key} {row[key]} must be the newest value at {row[EVENT_TIMESTAMP]} (got {got!r}, "
            "which was not usable then); build the frame with point_in_time_frame"
        ),
    )


def check_labels(
    frame: pa.Table, labels: Sequence[str], *, trusted: Collection[str] = (), seed: int = 0
) -> list[LeakFinding]:
    """Features of a frame that know its labels.

    Args:
        frame: As in `leak_check`; a sample of it is looked at when it is long.
    """
    absent = [name for name in labels if name not in frame.column_names]
    if absent:
        raise ValueError(f"frame must have the label columns (lacks {absent}; has {frame.column_names})")
    if frame.num_rows > _MAX_ROWS:
        frame = frame.take(np.sort(np.random.default_rng(seed).permutation(frame.num_rows)[:_MAX_ROWS]))
    findings = []
    for label in labels:
        known = frame.filter(pc.is_valid(frame[label]))
        target = np.asarray(known[label].cast(pa.float64()))
        if min(target.sum(), len(target) - target.sum()) < _MIN_CLASS:
            logger.info("leak_check=skipped label=%s reason=fewer_than_%d_of_a_class", label, _MIN_CLASS)
            continue
        findings += list(_single_features(known, label, target, seed))
        findings += list(_outlooks(known, label, target, trusted, seed))
    return findings


def _single_features(frame: pa.Table, label: str, target: Floats, seed: int) -> Iterator[LeakFinding]:
    for column in _numeric_features(frame):
        view, feature = column.split("__", 1)
        values = _floats(frame[column])
        missing = np.isnan(values)
        auc = _folded_auc(np.where(missing, -np.inf, values), target)
        if missing.any():
            auc = max(auc, _folded_auc(missing.astype(np.float64), target))
        if auc >= AUC_BOUND:
            text = f"{view}.{feature} must not rank {label} with AUC {AUC_BOUND} or more (got {auc:.4f}); drop it"
            yield LeakFinding(check="label_copy", view=view, feature=feature, figure=auc, text=text)
            continue
        entity = next((entity for entity in ENTITIES if view.startswith(f"{entity}_")), None)
        if entity is None or join_key(entity) not in frame.column_names or missing.all():
            continue
        keys = np.asarray(frame[join_key(entity)])[~missing]
        found = noise_excess(keys, values[~missing], target[~missing], min_rows=_MIN_GROUP_ROWS, seed=seed)
        # Where exposures were sampled per entity, rates vary less than by chance and the true part comes out negative.
        bound = max(found.bound, 0.0) if found else 0.0
        if found and found.figure - bound > _NOISE_MARGIN and found.deviations > _NOISE_DEVIATIONS:
            text = (
                f"{view}.{feature} must not explain more of the {label} rates than their true part, "
                f"{bound:.3f} of the variance (got {found.figure:.3f}, {found.deviations:.1f} standard errors "
                "above): it was computed from these labels; stamp it after them or drop it"
            )
            yield LeakFinding(check="label_luck", view=view, feature=feature, figure=found.figure, text=text)


def _outlooks(
    frame: pa.Table, label: str, target: Floats, trusted: Collection[str], seed: int
) -> Iterator[LeakFinding]:
    times = np.asarray(frame[EVENT_TIMESTAMP].cast(pa.int64()))
    for entity in ENTITIES:
        view, key = attributes_view(entity), join_key(entity)
        columns = [name for name in _numeric_features(frame) if name.startswith(feature_reference(view, ""))]
        if view in trusted or not columns or key not in frame.column_names:
            continue
        features = np.stack([_floats(frame[name]) for name in columns], axis=1)
        found = outlook_excess(np.asarray(frame[key]), times, features, target, min_rows=_MIN_GROUP_ROWS, seed=seed)
        if found and found.figure > max(found.bound, _OUTLOOK_FLOOR):
            text = (
                f"{view} must not tell more about later {label} rates than the earlier rates do, correlation "
                f"{found.bound:.3f} over {found.num_groups} {entity}s (got {found.figure:.3f} from {len(columns)} "
                "columns): they may average the whole period; look up from when they hold, then drop or trust them"
            )
            yield LeakFinding(check="outlook", view=view, feature="", figure=found.figure, text=text)


def _folded_auc(scores: Floats, target: Floats) -> float:
    auc = roc_auc(scores, target == 1.0)
    return max(auc, 1.0 - auc)


def _numeric_features(frame: pa.Table) -> list[str]:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return [field.name for field in frame.schema if "__" in field.name and any(kind(field.type) for kind in kinds)]


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _snapshots(repo: Path, view: str, since: datetime | None) -> ds.Dataset:
    folder = repo / snapshot_folder(view)
    if since is None:
        return ds.dataset(folder, format="parquet")
    files = sorted(folder.glob("*.parquet"))
    first = f"date={since:%Y-%m-%d}"
    recent = [str(file) for file in files if not file.stem.startswith("date=") or file.stem >= first]
    return ds.dataset(recent, schema=pq.read_schema(files[-1]), format="parquet")
