"""A proposal as YAML that a person reads, corrects and keeps: every guess with its evidence beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainers.data.discovery.entity_attributes import Attributes
from trainers.data.discovery.folder import FoundTable
from trainers.data.discovery.found_tables import EntityTable, HistoryTable, Role
from trainers.data.discovery.profiles import ColumnProfile
from trainers.data.discovery.proposal import Proposal
from trainers.data.discovery.targets import Kind, Label, as_name
from trainers.data.discovery.windows import FoundWindow

Line = tuple[str, str]
"""YAML, and what stands behind it as a comment."""
_COMMENT_FROM, _LONGEST_COMMENT = 46, 110
_MOST_UNREAD = 8


def render(proposal: Proposal, folder: Path) -> str:
    """The whole file.

    Args:
        folder: Folder of the data as the YAML is to name it: relative to where the YAML will lie.
    """
    lines = [*_head(proposal), *_targets(proposal), *_attributes(proposal), *_window(proposal.window)]
    lines += [*_keys(proposal), *_tables(proposal, folder)]
    return "\n".join(_text(*line) for line in lines) + "\n"


def _text(content: str, comment: str) -> str:
    if not comment:
        return content
    shown = comment if len(comment) <= _LONGEST_COMMENT else comment[: _LONGEST_COMMENT - 1] + "…"
    shown = " ".join(shown.split())
    return f"{content:<{_COMMENT_FROM - 2}}  # {shown}" if content else f"# {shown}"


def _scalar(value: Any) -> str:
    """A value as one line of YAML that reads back as the same value."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def _flow(**entries: Any) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in entries.items()) + "}"


def _head(proposal: Proposal) -> Iterator[Line]:
    yield "", "Proposed by `headwater init`. Read every line, correct what is wrong, then `headwater check` this file."
    yield "", "What the keys mean: docs/own_data.md."
    yield f"name: {_scalar(proposal.name)}", ""
    yield f"title: {_scalar(proposal.name.replace('_', ' ').capitalize())}", "shown in the report"
    yield f"impression: {_scalar(f'A row of {proposal.roles.impressions.pattern}.')}", "in your words, for the report"
    yield f"click: {_scalar(_click_words(proposal.labels[0]))}", ""
    if proposal.all_kinds:
        names = ", ".join(kind.name for kind in proposal.all_kinds)
        yield f"conversion: {_scalar(f'One of {names}, after the impression.')}", ""
    yield "", ""


def _click_words(label: Label) -> str:
    if label.at_least is not None:
        return f"{label.column} is at least {label.at_least:g}."
    return f"{label.column} is {label.equals if label.equals is not None else 1}."


def _targets(proposal: Proposal) -> Iterator[Line]:
    click, *others = proposal.labels
    yield f"labels: {_scalar([label.name for label in proposal.labels])}", "known with the impression"
    if proposal.all_kinds:
        yield "conversions:", "known later; attribution_days is the delay by which nearly all have come"
        for kind in proposal.all_kinds:
            yield f"  - {_flow(kind=kind.name, attribution_days=kind.attribution_days)}", kind.why
    yield "tasks:", "what models predict"
    yield f"  - {_flow(name=click.name, label=click.name, domain='engagement')}", ""
    for label in others:
        yield f"  - {_flow(name=label.name, label=label.name, domain='engagement')}", ""
    for kind in proposal.all_kinds:
        yield f"  - {_flow(name=kind.name, label=kind.name, domain='conversion')}", ""
    yield f"ctr_task: {click.name}", "the CTR ranker is judged on it"
    if proposal.all_kinds:
        yield f"cvr_task: {proposal.all_kinds[0].name}", "the CVR ranker is judged on it; the most frequent kind"
    if proposal.roles.histories:
        names = [history_name(each) for each in proposal.roles.histories]
        yield f"histories: {_scalar(names)}", "Pins that users met before the log; only upstream reads them"
    repeats = "users often meet a Pin again" if proposal.repeats else "users seldom meet a Pin again"
    yield f"repeats: {_scalar(proposal.repeats)}", repeats
    yield "", ""


def _attributes(proposal: Proposal) -> Iterator[Line]:
    for key, attributes in (("user_attributes", proposal.users), ("pin_attributes", proposal.pins)):
        if attributes is None or not (attributes.found or attributes.left_out):
            continue
        if attributes.found:
            yield f"{key}:", "delete what models must not see, such as what was only known later"
        for each in attributes.found:
            entry = {"name": each.name, "kind": each.kind, "type": each.type} | ({"dim": each.dim} if each.dim else {})
            yield f"  - {_flow(**entry)}", each.why
        for column, reason in attributes.left_out.items():
            yield "", f"left out: {column} ({reason})"
        if key == "pin_attributes" and attributes.title:
            yield f"pin_title: {attributes.title}", "names a Pin to people"
        yield "", ""


def _window(window: FoundWindow) -> Iterator[Line]:
    yield "window:", window.why
    yield f"  features_from: {_moment(window.features_from)}", "first snapshot of features; upstream training begins"
    yield f"  train_from: {_moment(window.train_from)}", "downstream training begins"
    yield f"  test_from: {_moment(window.test_from)}", "the test days begin"
    yield f"  until: {_moment(window.until)}", "and end"
    yield "", ""


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _keys(proposal: Proposal) -> Iterator[Line]:
    roles = proposal.roles
    found = {"user": roles.user, "pin": roles.pin, "impression": roles.impression}
    texts = {name: "string" for name, role in found.items() if proposal.key_type(role) == "string"}
    if texts:
        yield f"keys: {_flow(**texts)}", "ids that are texts; the others are numbers"
        yield "", ""


def _tables(proposal: Proposal, folder: Path) -> Iterator[Line]:
    roles = proposal.roles
    yield "tables:", ""
    yield from _impressions(proposal, folder)
    if roles.conversions:
        yield from _conversions(proposal, folder)
    for name, entity, attributes in (("users", roles.users, proposal.users), ("pins", roles.pins, proposal.pins)):
        if entity is not None and attributes is not None and attributes.found:
            yield from _entity(name, entity, attributes, proposal, folder)
    if roles.histories:
        yield from _histories(proposal, folder)
    for table in roles.unused:
        yield "", f"not used: {table.pattern} ({table.listed()})"
    if roles.unused:
        yield "", "used are tables with the impressions' keys whose name says what they are; --conversions names others"


def _files(table: FoundTable, folder: Path) -> list[Line]:
    number = f"{table.num_files} files, " if table.num_files > 1 else ""
    lines = [(f"    files: {_scalar((folder / table.pattern).as_posix())}", f"{number}{table.num_rows:,} rows")]
    if table.delimiter:
        lines.append((f"    delimiter: {_scalar(table.delimiter)}", "what separates the columns"))
    return lines


def _mapped(entries: Iterable[tuple[str, Role | None]]) -> Iterator[Line]:
    yield "    columns:", ""
    for name, role in entries:
        if role is not None:
            yield f"      {name}: {_scalar(role.column)}", role.why


def _impressions(proposal: Proposal, folder: Path) -> Iterator[Line]:
    roles, table = proposal.roles, proposal.roles.impressions
    yield "  impressions:", roles.why_impressions
    yield from _files(table, folder)
    columns = (("impression_id", roles.impression), ("user_id", roles.user), ("pin_id", roles.pin))
    extras = (("position", roles.position), ("propensity", roles.propensity))
    yield from _mapped((*columns, ("surface", proposal.surface), ("event_timestamp", roles.time), *extras))
    if proposal.surface is None:
        yield f"    constants: {_flow(surface='all')}", "no column tells surfaces apart"
    yield from _timestamp(table.columns[roles.time.column])
    yield "    labels:", ""
    for label in proposal.labels:
        yield f"      {label.name}: {_rule(label)}", label.why
    unread = _unread(proposal)
    if unread:
        yield "", f"not read: {', '.join(unread)}; features of an impression come from its user and Pin"


def _unread(proposal: Proposal) -> list[str]:
    """Columns of the impressions without a use, the first of many."""
    roles = proposal.roles
    found = (roles.impression, roles.user, roles.pin, roles.time, roles.position, roles.propensity, proposal.surface)
    used = {role.column for role in found if role} | {label.column for label in proposal.labels}
    names = [name for name in roles.impressions.columns if name not in used]
    more = [f"and {len(names) - _MOST_UNREAD} more"] if len(names) > _MOST_UNREAD else []
    return names[:_MOST_UNREAD] + more


def _rule(label: Label) -> str:
    if label.at_least is not None:
        return _flow(column=label.column, at_least=label.at_least)
    if label.equals is not None:
        return _flow(column=label.column, equals=label.equals)
    return _scalar(label.column)


def _timestamp(column: ColumnProfile) -> Iterator[Line]:
    if column.time in ("unix_s", "unix_ms"):
        yield (
            f"    timestamp: {_flow(format=column.time)}",
            f"{column.smallest} is {column.examples().partition(' to ')[0]}",
        )
    elif column.time == "naive":
        yield f"    timestamp: {_flow(format='iso', timezone='UTC')}", f"{column.smallest} names no zone: is it UTC?"


def _conversions(proposal: Proposal, folder: Path) -> Iterator[Line]:
    several = len(proposal.roles.conversions) > 1
    yield "  conversions:", ""
    for found, kinds in zip(proposal.roles.conversions, proposal.kinds, strict=True):
        lines = _files(found.table, folder)
        if found.impression is None:
            content, rows = lines[0]
            lines[0] = (content, f"{rows} that name no impression: each goes to the latest of its user and Pin")
        columns = (("impression_id", found.impression), ("user_id", found.user), ("pin_id", found.pin))
        extras = (("event_timestamp", found.time), ("kind", found.kind), ("value", found.value))
        lines += _mapped((*columns, *extras))
        lines += _kind_lines(found.kind, kinds)
        lines += _timestamp(found.table.columns[found.time.column])
        yield from _items(lines) if several else lines


def history_name(history: HistoryTable) -> str:
    """Name of a history, from its files'."""
    return as_name(history.table.stem)


def _histories(proposal: Proposal, folder: Path) -> Iterator[Line]:
    yield "  histories:", ""
    for each in proposal.roles.histories:
        yield f"    {history_name(each)}:", ""
        lines = _files(each.table, folder)
        lines += _mapped((("user_id", each.user), ("pin_ids", each.pins), ("event_timestamp", each.time)))
        if each.separator:
            lines.append((f"    separators: {_flow(pin_ids=each.separator)}", ""))
        if each.time is not None:
            lines += _timestamp(each.table.columns[each.time.column])
        else:
            start = proposal.window.features_from
            lines.append((f"    holds_from: {_moment(start)}", "rows have no time: do all their Pins lie before this?"))
        yield from ((f"  {content}", comment) for content, comment in lines)


def _kind_lines(column: Role | None, kinds: Sequence[Kind]) -> Iterator[Line]:
    if column is None and kinds:
        yield f"    constants: {_flow(kind=kinds[0].name)}", "every row is one, from the file's name"
    renamed = {kind.value: kind.name for kind in kinds if kind.value not in (None, kind.name)}
    if renamed:
        yield f"    values: {_flow(kind=renamed)}", "names as declarations want them"


def _items(lines: Sequence[Line]) -> Iterator[Line]:
    """Lines of a mapping as one item of a list."""
    first, *rest = lines
    yield f"    - {first[0].strip()}", first[1]
    yield from ((f"  {content}", comment) for content, comment in rest)


def _entity(name: str, entity: EntityTable, attributes: Attributes, proposal: Proposal, folder: Path) -> Iterator[Line]:
    table = entity.table
    yield f"  {name}:", ""
    yield from _files(table, folder)
    renamed = [(each.name, Role(column=each.column, why="")) for each in attributes.found if each.name != each.column]
    yield from _mapped(
        (("user_id" if name == "users" else "pin_id", entity.key), ("event_timestamp", entity.time), *renamed)
    )
    if not entity.covers_all:
        yield "    covers_all: false", "impressions name more; without this their rows would be set aside"
    separators = {each.name: each.separator for each in attributes.found if each.separator}
    if separators:
        yield f"    separators: {_flow(**separators)}", ""
    if entity.time is not None:
        yield from _timestamp(table.columns[entity.time.column])
    else:
        start = proposal.window.features_from.replace(month=1, day=1)
        why = "rows have no time: were the attributes known all along? If not, they leak the future"
        yield f"    holds_from: {_moment(start)}", why
