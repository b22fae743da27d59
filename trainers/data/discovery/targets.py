"""Labels, surface, conversions and tasks of the impressions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import duckdb

from trainers.data.connection import literal, quote
from trainers.data.dataset import RESERVED, SpecError
from trainers.data.discovery.folder import FoundTable
from trainers.data.discovery.found_tables import ConversionTable, Role, Roles
from trainers.data.discovery.profiles import ColumnProfile, moment_sql
from trainers.data.discovery.vocabulary import ACTION, CLICK, NO_ACTION, RATING, SURFACE, YES, YES_NO, named_like

_MOST_SURFACES, _MOST_ACTIONS = 100, 12
_GOOD_RATING = 0.75
_LONGEST_ATTRIBUTION, _LEAST_LENGTHS = 365, 4
"""Longest attribution window in days, and how many of them the log must have room for."""
_NOT_A_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A 0/1 label and the column that it comes from."""

    name: str
    column: str
    why: str
    at_least: float | None = None
    equals: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of conversion."""

    name: str
    value: str | None
    """What the files call it, where a column tells kinds apart."""
    attribution_days: int
    count: int
    """Conversions that come soon enough after an impression to be waited for."""
    why: str


def as_name(text: str) -> str:
    """A name as declarations want it, of any text."""
    made = _NOT_A_NAME.sub("_", text.lower()).strip("_") or "column"
    made = made if made[0].isalpha() else f"c_{made}"
    return f"{made}_label" if made in RESERVED else made


def find_surface(roles: Roles, hint: str | None = None) -> Role | None:
    """The column that tells surfaces apart; none where all impressions come from one.

    Raises:
        SpecError: The impressions lack the column that a person named.
    """
    if hint is not None:
        if hint not in roles.impressions.columns:
            table = roles.impressions
            raise SpecError(
                f"the impressions, {table.pattern}, must have the column of --surface (got columns {table.listed()}); "
                f"correct --surface {hint}"
            )
        return Role(column=hint, why="named with --surface")
    taken = {roles.user.column, roles.pin.column, roles.time.column}
    for each in roles.impressions.columns.values():
        few = each.reading in ("text", "integer") and each.separator is None and 2 <= each.distinct <= _MOST_SURFACES
        if few and each.present == each.rows and each.name not in taken and named_like(each.name, SURFACE):
            return Role(column=each.name, why=f"{each.distinct} different values, {each.examples()}")
    return None


def find_labels(connection: duckdb.DuckDBPyConnection, roles: Roles, surface: Role | None) -> tuple[Label, ...]:
    """Columns of the impressions that say what came of one: 0/1 columns, actions by name, ratings.

    Raises:
        SpecError: There is none.
    """
    table = roles.impressions
    used = (roles.user, roles.pin, roles.time, roles.impression, roles.position, roles.propensity, surface)
    taken = {role.column for role in used if role is not None}
    found: list[Label] = []
    for each in table.columns.values():
        if each.name not in taken and not each.is_constant:
            found += _labels_of(connection, table, each)
    if not found:
        raise SpecError(
            f"the impressions, {table.pattern}, must have a label such as a column of 0 and 1, or of yes and no, that "
            f"says whether each was clicked (got columns {table.listed()}); add one, or give --impressions with part "
            "of the name of another file"
        )
    unique = {label.name: label for label in found}
    return tuple(sorted(unique.values(), key=lambda label: not named_like(label.column, CLICK)))


def _labels_of(connection: duckdb.DuckDBPyConnection, table: FoundTable, column: ColumnProfile) -> list[Label]:
    if column.reading == "binary":
        share = _share(connection, table, column.name, "IN ('1', 'true')")
        name = "click" if column.name.lower() in CLICK else as_name(column.name)
        return [Label(name=name, column=column.name, why=f"0 and 1; {share:.1%} are 1")]
    if column.reading in ("integer", "number") and named_like(column.name, RATING) and column.distinct <= 20:
        low, high = float(column.smallest), float(column.largest)
        bound = round(low + _GOOD_RATING * (high - low))
        why = f"{column.distinct} grades, {column.examples()}: the upper ones count as liked"
        return [Label(name="like", column=column.name, at_least=float(bound), why=why)]
    yes = next((word for word in _yes(column) if column.reading == "text"), None)
    if yes is not None:
        share = _share(connection, table, column.name, f"= {literal(yes.lower())}")
        name = "click" if column.name.lower() in CLICK else as_name(column.name)
        return [Label(name=name, column=column.name, equals=yes, why=f"{column.examples()}; {share:.1%} are {yes}")]
    is_word = column.reading == "text" and column.separator is None and column.distinct <= _MOST_ACTIONS
    return _actions(connection, table, column) if is_word and named_like(column.name, ACTION) else []


def _yes(column: ColumnProfile) -> list[str]:
    """The value that says yes, where a column has one that says yes, one that says no, and no other."""
    values = (column.smallest, column.largest)
    if column.distinct != 2 or tuple(sorted(each.lower() for each in values)) not in YES_NO:
        return []
    return [each for each in values if each.lower() in YES]


def _actions(connection: duckdb.DuckDBPyConnection, table: FoundTable, column: ColumnProfile) -> list[Label]:
    rows = connection.execute(
        f"SELECT {quote(column.name)}::VARCHAR AS value_, count(*) FROM {table.source} "
        f"WHERE {quote(column.name)} IS NOT NULL GROUP BY value_ ORDER BY 2 DESC"
    ).fetchall()
    total = sum(count for _, count in rows)
    return [
        Label(name=as_name(value), column=column.name, equals=value, why=f"{count / total:.1%} of {column.name}")
        for value, count in rows
        if value.strip() and value.strip().lower() not in NO_ACTION
    ]


def _share(connection: duckdb.DuckDBPyConnection, table: FoundTable, column: str, test: str) -> float:
    row = connection.execute(
        f"SELECT avg((lower({quote(column)}::VARCHAR) {test})::INTEGER) FROM {table.source}"
    ).fetchone()
    return float(row[0] or 0.0) if row else 0.0


def find_kinds(connection: duckdb.DuckDBPyConnection, roles: Roles) -> list[tuple[Kind, ...]]:
    """Kinds of conversions in each of the tables that hold some, with the delay after which nearly all have come.

    What comes later than a quarter of the log's length is not waited for: too few days would be left to learn from.
    """
    longest = min(_LONGEST_ATTRIBUTION, max(1, _num_days(connection, roles) // _LEAST_LENGTHS))
    return [tuple(_kinds(connection, roles, each, longest)) for each in roles.conversions]


def _num_days(connection: duckdb.DuckDBPyConnection, roles: Roles) -> int:
    moment = moment_sql(roles.impressions.columns[roles.time.column])
    query = f"SELECT date_diff('day', min({moment}), max({moment})) + 1 FROM {roles.impressions.source}"
    row = connection.execute(query).fetchone()
    return int(row[0] or 0) if row else 0


def _kinds(connection: duckdb.DuckDBPyConnection, roles: Roles, found: ConversionTable, longest: int) -> list[Kind]:
    name = f"c.{quote(found.kind.column)}::VARCHAR" if found.kind else literal(_singular(found.table.stem))
    shown, came = _with_moment(roles.impressions, roles.time), _with_moment(found.table, found.time)
    rows = connection.execute(
        f"SELECT kind, count(*), quantile_cont(days, 0.5), quantile_cont(days, 0.95) FROM ("
        f"SELECT {name} AS kind, epoch(c.moment_ - i.moment_) / 86400 AS days FROM {came} AS c "
        f"{_join(found, roles, shown)}) WHERE days BETWEEN 0 AND {longest} GROUP BY kind ORDER BY 2 DESC"
    ).fetchall()
    return [
        Kind(
            name=as_name(kind),
            value=kind if found.kind else None,
            attribution_days=max(1, math.ceil(late)),
            count=count,
            why=f"{count:,} within {longest} days; half within {half:.1f} days, 95 % within {late:.1f}",
        )
        for kind, count, half, late in rows
    ]


def _join(found: ConversionTable, roles: Roles, shown: str) -> str:
    """SQL that joins conversions `c` with impressions `i`: those they name, or the latest they can have come from."""
    if found.user is None or found.pin is None:
        mine = found.impression.column if found.impression else ""
        reference = roles.impression.column if roles.impression else mine
        return f"JOIN {shown} AS i ON c.{quote(mine)}::VARCHAR = i.{quote(reference)}::VARCHAR"
    pairs = ((found.user, roles.user), (found.pin, roles.pin))
    alike = " AND ".join(f"c.{quote(a.column)}::VARCHAR = i.{quote(b.column)}::VARCHAR" for a, b in pairs)
    return f"ASOF JOIN {shown} AS i ON {alike} AND c.moment_ >= i.moment_"


def _with_moment(table: FoundTable, time: Role) -> str:
    return f"(SELECT *, {moment_sql(table.columns[time.column])} AS moment_ FROM {table.source})"


def _singular(stem: str) -> str:
    return stem[:-1] if stem.endswith("s") and len(stem) > 3 else stem
