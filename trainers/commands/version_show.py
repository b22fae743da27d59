"""`headwater version show`: one embedding version with everything that made it, its days, its readers and its past."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption
from trainers.commands.tables import aligned, terminal_width

if TYPE_CHECKING:
    from feature_repo.versions import Consumer, DayRecord, Transition, VersionRecord

VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="Embedding version, such as ctr_v1.")]
_SHOWN_DIGITS = 12
"""Of a sha256; `--json` has all."""


def show(
    version: VersionArgument, run: ExistingRunOption, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Show an embedding version: what it was trained with and on, its days and gate figures, readers, and past."""
    from feature_repo.versions import record_fields, version_subject
    from trainers.life.consumers import record_consumers
    from trainers.life.operators import REPO, open_catalogue

    with exit_codes(debug=debug, as_json=as_json):
        catalogue = open_catalogue(run)
        record_consumers(catalogue, run / REPO)
        record, days = catalogue.version(version), catalogue.days(version)
        readers, past = catalogue.consumers(version), catalogue.transitions(version_subject(version))
        if as_json:
            parts: dict[str, Sequence[Any]] = {"days": days, "consumers": readers, "transitions": past}
            listed = {name: [record_fields(each) for each in found] for name, found in parts.items()}
            typer.echo(json.dumps({"run": str(run), "version": record_fields(record), **listed}, indent=2))
        else:
            typer.echo(aligned(list(_rows(record, days, readers, past)), width=terminal_width()))


def _rows(
    record: VersionRecord, days: Sequence[DayRecord], readers: Sequence[Consumer], past: Sequence[Transition]
) -> Iterator[tuple[str, str]]:
    """A line for each part of the manifest, then one for each transition, oldest first."""
    yield "version", f"{record.key}, {record.state}"
    yield "space", f"{record.space_id or 'none yet'}, {record.dim} wide, max age {record.ttl_hours} h"
    yield "trained on", f"{_day(record.data_from)} until {_day(record.data_until)}"
    yield "trained by", f"commit {record.commit or 'unknown'}, seed {record.seed}"
    yield "parents", ", ".join(record.parents) or "none"
    yield "alignment", record.alignment.replace("_", " ")
    yield "served through", record.served_through or "itself"
    yield "recipe", json.dumps(dict(record.recipe), sort_keys=True)
    yield from _days(days)
    yield "read by", "; ".join(map(str, readers)) or "nothing"
    for path, digest in sorted(record.artifacts.items()):
        yield "artifact", f"{digest[:_SHOWN_DIGITS]} {path}"
    for each in past:
        if each.before != each.after:
            yield f"{each.at:%Y-%m-%d %H:%M}", f"{each.after} by {each.who}: {each.why}"


def _days(days: Sequence[DayRecord]) -> Iterator[tuple[str, str]]:
    visible = [each for each in days if each.state == "visible"]
    span = f"{len(visible)} visible, {_day(visible[0].cutoff)} to {_day(visible[-1].cutoff)}" if visible else "none"
    yield "days", span
    for each in [*visible[-1:], *(day for day in days if day.state == "failed")]:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(each.gates.items()))
        failed = f"failed {', '.join(each.failed)}: " if each.failed else ""
        yield f"gates {_day(each.cutoff)}", f"{failed}{figures or 'none'}"


def _day(moment: Any) -> str:
    return f"{moment:%Y-%m-%d}" if moment is not None else "unknown"
