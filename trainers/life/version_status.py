"""Where every embedding version stands: state, age against its TTL, coverage, drift, readers, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from feature_repo.versions import Catalogue, VersionRecord, VersionSummary, record_fields
from trainers.data.event_log import EventLog
from trainers.life.consumers import record_consumers
from trainers.life.operators import REPO
from trainers.life.refreshed import REFRESHED_STATES, continuation_of

ClockKind = Literal["wall", "replay", "given"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The moment at which ages are taken, and why that one."""

    as_of: datetime
    kind: ClockKind
    """`wall`; `replay`, the end of a log that had ended long before the versions were made; `given`."""


def version_status(run: Path, catalogue: Catalogue, as_of: datetime | None = None) -> dict[str, Any]:
    """What `headwater status --json` says of the versions: `as_of`, `clock`, `versions`, `live`, `shadow`, `warnings`.

    Who reads what is taken from the feature registry as it is now.

    Args:
        as_of: Moment at which ages are taken; found out when not given.
    """
    record_consumers(catalogue, run / REPO)
    log = EventLog(run / "event_log")
    moment = Moment(as_of=as_of, kind="given") if as_of else moment_of(catalogue.versions(), log)
    found = catalogue.summaries(moment.as_of, log.spec.publish_delay)
    pointers, versions = catalogue.pointers(), [each.version for each in found]
    return {
        "as_of": moment.as_of.isoformat(),
        "clock": moment.kind,
        "versions": [_fields(each) for each in found],
        "live": pointers.live,
        "shadow": pointers.shadow,
        "split": record_fields(pointers.split) if pointers.split else None,
        "warnings": [text for each in found for text in warnings_of(run, each, versions)],
    }


def moment_of(versions: Iterable[VersionRecord], log: EventLog) -> Moment:
    """Now; or, when all data was older than every TTL when the versions were made, the end of the log."""
    dated = [each for each in versions if each.data_until is not None]
    old = [each for each in dated if _age_when_made(each) > timedelta(hours=each.ttl_hours)]
    if not dated or len(old) < len(dated):
        return Moment(as_of=datetime.now(UTC), kind="wall")
    days = [path.name.removeprefix("date=") for path in (log.path / "impressions").glob("date=*")]
    newest = max((datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days), default=log.spec.window.until)
    end = datetime.combine((newest + timedelta(days=1)).date(), log.spec.window.until.timetz()).astimezone(UTC)
    return Moment(as_of=max(end, log.spec.window.until) + log.spec.publish_delay, kind="replay")


def warnings_of(run: Path, summary: VersionSummary, versions: Sequence[VersionRecord] = ()) -> list[str]:
    """What an operator should do something about.

    Args:
        versions: All versions, among which the one may be that this one goes on as.
    """
    version = summary.version
    found: list[str] = []
    if version.state not in REFRESHED_STATES:
        return found
    if (tried := summary.last_tried) is not None and tried.state == "failed":
        failed = ", ".join(f"{name} {tried.gates[name]:.4g}" if name in tried.gates else name for name in tried.failed)
        found.append(
            f"{version.key} of {tried.cutoff:%Y-%m-%d} failed its gates ({failed}); the day before stays visible"
        )
    if summary.newest is None:
        found.append(f"{version.key} has no visible day; finish its training")
    elif summary.freshness != "fresh":
        found.append(_lateness(run, summary, continuation_of(version, versions)))
    return found


def _lateness(run: Path, summary: VersionSummary, newer: VersionRecord | None) -> str:
    assert summary.newest is not None
    assert summary.hours_left is not None
    key, day = summary.version.key, f"{summary.newest.cutoff:%Y-%m-%d}"
    due = f"{summary.newest.cutoff + timedelta(days=1):%Y-%m-%d}"
    if summary.freshness == "late":
        left = f"in {summary.hours_left:.0f} h its vectors are outside max age"
    else:
        left = (
            f"its vectors are outside max age since {-summary.hours_left:.0f} h, and every reader takes them as missing"
        )
    if newer is not None:
        return f"{key} goes on as {newer.key}: newest day {day}, {left}; move its readers to a release with {newer.key}"
    return f"the refresh of {key} is late: newest day {day}, {left}; run `headwater refresh --run {run} --as-of {due}`"


def _age_when_made(version: VersionRecord) -> timedelta:
    assert version.data_until is not None
    return version.created - version.data_until


def _fields(summary: VersionSummary) -> dict[str, Any]:
    version, newest, tried = summary.version, summary.newest, summary.last_tried
    gates = newest.gates if newest is not None else {}
    return {
        "version": version.key,
        "state": version.state.value,
        "space_id": version.space_id,
        "dim": version.dim,
        "ttl_hours": version.ttl_hours,
        "served_through": version.served_through,
        "num_days": summary.num_days,
        "newest_day": newest.cutoff.isoformat() if newest is not None else None,
        "age_hours": _rounded(summary.age_hours),
        "hours_left": _rounded(summary.hours_left),
        "freshness": summary.freshness,
        "entities": dict(newest.entities) if newest is not None else {},
        "coverage": _named(gates, "coverage"),
        "drift": _named(gates, "since_reference"),
        "last_tried": {"day": tried.cutoff.isoformat(), "state": tried.state} if tried is not None else None,
        "consumers": [{"kind": each.kind, "name": each.name, "detail": each.detail} for each in summary.consumers],
    }


def _named(gates: Mapping[str, float], part: str) -> dict[str, float]:
    return {name: value for name, value in gates.items() if part in name}


def _rounded(hours: float | None) -> float | None:
    return None if hours is None else round(hours, 2)
