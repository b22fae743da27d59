"""Which table is what, and which of its columns are keys and moments: by names, by counts, by shared values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import duckdb

from trainers.data.dataset import SpecError
from trainers.data.discovery.folder import FoundTable, shared, shared_elements
from trainers.data.discovery.found_tables import ConversionTable, EntityTable, Hints, HistoryTable, Role, Roles
from trainers.data.discovery.profiles import SEPARATORS, ColumnProfile
from trainers.data.discovery.vocabulary import (
    AMOUNT,
    CONVERSION,
    IMPRESSION,
    MOMENT,
    OF_A_KEY,
    PIN,
    POSITION,
    PROPENSITY,
    USER,
    named_like,
    words,
)

_ENOUGH_SHARED = 0.5
_ENOUGH_SHARED_BY_NAME, _ALL_SHARED = 0.02, 0.999
_FEW_ROWS_EACH = 0.2


def find_roles(connection: duckdb.DuckDBPyConnection, tables: Sequence[FoundTable], hints: Hints) -> Roles:
    """Roles of tables and columns.

    Raises:
        SpecError: No table can be the impressions; the text says which tables there are and what to say.
    """
    table, why = _impressions(tables, hints)
    time = _time(table)
    user = _key(connection, table, tables, USER, "user", hints.user, taken=())
    pin = _key(connection, table, tables, PIN, "Pin", hints.pin, taken=(user.column,))
    if time is None:
        raise SpecError(_refusal("a column with moments", table, "add one, such as shown_at"))
    roles = Roles(impressions=table, why_impressions=why, user=user, pin=pin, time=time)
    roles.position, roles.propensity = _position(table), _propensity(table)
    rest = [each for each in tables if each is not table]
    roles.histories = find_histories(connection, roles, rest)
    rest = [each for each in rest if all(each is not history.table for history in roles.histories)]
    for entity, role in (("users", user), ("pins", pin)):
        # What has both keys in many rows is about their meeting, and describes neither.
        apart = [each for each in rest if _has_unique_key(each) or _entity_keys(connection, roles, each) is None]
        found = _entity_table(connection, table, role, apart)
        setattr(roles, entity, found)
        rest = [each for each in rest if found is None or each is not found.table]
    _find_conversions(connection, roles, rest, hints)
    used = [each.table for each in roles.conversions]
    roles.unused = [each for each in rest if all(each is not one for one in used)]
    return roles


def _impressions(tables: Sequence[FoundTable], hints: Hints) -> tuple[FoundTable, str]:
    if hints.impressions:
        named = [table for table in tables if hints.impressions in table.pattern]
        if len(named) != 1:
            raise SpecError(
                f"--impressions must fit the files of one table (got {hints.impressions!r}, which fits "
                f"{len(named)} of {_listed(tables)}); give more of the file name"
            )
        return named[0], "named with --impressions"
    able = [table for table in tables if _time(table) and len(_keys(table)) >= 2]
    if not able:
        raise SpecError(
            "one table must have moments, users and Pins, a row per impression (got "
            f"{_listed(tables)}); give --impressions with part of its file name, --user and --pin with its columns"
        )
    best = max(able, key=_likeness)
    return best, f"{best.num_rows:,} rows with moments and at least two columns that can be keys"


def _likeness(table: FoundTable) -> tuple[int, int]:
    binary = any(each.reading == "binary" for each in table.columns.values())
    is_named, is_conversion = (named_like(table.stem, each) for each in (IMPRESSION, CONVERSION))
    return (2 * is_named - 2 * is_conversion + binary, table.num_rows)


def _keys(table: FoundTable) -> list[ColumnProfile]:
    return [each for each in table.columns.values() if each.may_be_key]


def _time(table: FoundTable) -> Role | None:
    """The column whose name says most clearly that it holds the moment of a row."""
    moments = [each for each in table.columns.values() if each.reading == "time"]
    if not moments:
        return None

    def rank(each: ColumnProfile) -> int:
        found = {each.name.lower(), *words(each.name)}
        return next((place for place, word in enumerate(MOMENT) if word in found), len(MOMENT))

    best = min(moments, key=lambda each: (rank(each), each.rows - each.present))
    others = [each.name for each in moments if each is not best]
    instead = f"; {', '.join(others)} also hold moments" if others else ""
    return Role(column=best.name, why=f"moments from {best.examples()}{instead}")


def _key(
    connection: duckdb.DuckDBPyConnection,
    table: FoundTable,
    tables: Sequence[FoundTable],
    known: frozenset[str],
    what: str,
    hint: str | None,
    taken: Sequence[str],
) -> Role:
    option = f"--{what.lower()}"
    if hint is not None:
        if hint not in table.columns:
            raise SpecError(_refusal(f"the column of {option}", table, f"correct {option} {hint}"))
        return Role(column=hint, why=f"named with {option}")
    able = [each for each in _keys(table) if each.name not in taken and not each.is_unique]
    named = [each for each in able if named_like(each.name, known) and not named_like(each.name, OF_A_KEY)]
    if named:
        best = min(named, key=lambda each: (len(words(each.name)), -each.distinct))
        return Role(column=best.name, why=f"called like a {what}; {best.distinct:,} different values")
    for each in able:
        other = next((o for o in tables if o is not table and _key_in(connection, table, each.name, o, known)), None)
        if other is not None:
            return Role(column=each.name, why=f"its values are the key of {other.pattern}, called like {what}s")
    raise SpecError(_refusal(f"a column that is called like a {what}", table, f"give {option} COLUMN"))


def _position(table: FoundTable) -> Role | None:
    for each in table.columns.values():
        if each.reading == "integer" and each.present and named_like(each.name, POSITION) and float(each.smallest) >= 0:
            return Role(column=each.name, why=f"whole numbers {each.examples()}")
    return None


def _propensity(table: FoundTable) -> Role | None:
    for each in table.columns.values():
        is_share = (
            each.reading in ("number", "integer", "binary") and 0 < float(each.smallest) <= float(each.largest) <= 1
        )
        if is_share and named_like(each.name, PROPENSITY):
            return Role(column=each.name, why=f"shares {each.examples()}")
    return None


def _key_in(
    connection: duckdb.DuckDBPyConnection, table: FoundTable, column: str, other: FoundTable, known: frozenset[str]
) -> bool:
    if not named_like(other.stem, known):
        return False
    unique = [each.name for each in other.columns.values() if each.is_unique and each.may_be_key]
    return any(shared(connection, (table, column), (other, name)) >= _ENOUGH_SHARED for name in unique)


def _entity_table(
    connection: duckdb.DuckDBPyConnection, impressions: FoundTable, role: Role, rest: Sequence[FoundTable]
) -> EntityTable | None:
    """The table that has nearly all values of a key and few rows for each; rather one whose rows have a time."""
    found: list[tuple[tuple[float, bool, bool, int], EntityTable]] = []
    for table in rest:
        moment = _time(table)
        for column in _keys(table):
            if not (column.is_unique or (moment and column.distinct >= _FEW_ROWS_EACH * column.rows)):
                continue
            share = shared(connection, (impressions, role.column), (table, column.name))
            # Many have attributes of some users only, such as those with an account.
            is_named = column.is_unique and column.name == role.column
            if share >= (_ENOUGH_SHARED_BY_NAME if is_named else _ENOUGH_SHARED):
                rows = "a row each" if column.is_unique else "several rows each"
                key = Role(column=column.name, why=f"{share:.0%} of the impressions' values are here, {rows}")
                rank = (round(share, 2), column.name == role.column, moment is not None, -len(words(table.stem)))
                covers_all = share >= _ALL_SHARED
                found.append((rank, EntityTable(table=table, key=key, time=moment, covers_all=covers_all)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _has_unique_key(table: FoundTable) -> bool:
    return any(each.is_unique for each in _keys(table))


def _find_conversions(
    connection: duckdb.DuckDBPyConnection, roles: Roles, rest: Sequence[FoundTable], hints: Hints
) -> None:
    unique = [each.name for each in roles.impressions.columns.values() if each.is_unique and each.may_be_key]
    for table in rest:
        moment = _time(table)
        if moment is None:
            continue
        found = _reference(connection, roles.impressions, unique, table)
        if found is None:
            named = any(text in table.pattern for text in hints.conversions) or _sounds_like_conversions(table)
            keys = _entity_keys(connection, roles, table) if named else None
            if keys is not None:
                roles.conversions.append(_conversion_table(table, moment, None, keys))
            continue
        name, reference = found
        roles.impression = roles.impression or Role(
            column=name, why=f"every row has its own; {table.pattern}, column {reference.column}, refers to it"
        )
        if roles.impression.column == name:
            roles.conversions.append(_conversion_table(table, moment, reference, None))
    for text in hints.conversions:
        if not any(text in each.table.pattern for each in roles.conversions):
            raise SpecError(
                "--conversions must fit files with moments and the ids of impressions, or their users and Pins (got "
                f"{text!r}, and {_listed(rest) or 'no other table'}); correct it, or map the table in the YAML"
            )


def _conversion_table(
    table: FoundTable, time: Role, impression: Role | None, keys: tuple[Role, Role] | None
) -> ConversionTable:
    user, pin = keys or (None, None)
    taken = {role.column for role in (time, impression, user, pin) if role is not None}
    rest = [each for each in table.columns.values() if each.name not in taken]
    return ConversionTable(
        table=table, impression=impression, user=user, pin=pin, time=time, kind=_kind(rest), value=_value(rest)
    )


def _sounds_like_conversions(table: FoundTable) -> bool:
    return named_like(table.stem, CONVERSION) or _value(table.columns.values()) is not None


def _entity_keys(connection: duckdb.DuckDBPyConnection, roles: Roles, table: FoundTable) -> tuple[Role, Role] | None:
    """Columns with the users and with the Pins of the impressions."""
    user = _same_values(connection, roles.impressions, roles.user, table, "user")
    pin = _same_values(connection, roles.impressions, roles.pin, table, "Pin", taken=user)
    return (user, pin) if user and pin else None


def _same_values(
    connection: duckdb.DuckDBPyConnection,
    impressions: FoundTable,
    role: Role,
    table: FoundTable,
    what: str,
    taken: Role | None = None,
) -> Role | None:
    """The column that has the values of a key of the impressions; small numbers must be called alike too."""
    for column in _keys(table):
        alike = column.name == role.column or not set(words(column.name)).isdisjoint(words(role.column))
        if (taken is not None and column.name == taken.column) or (column.reading != "text" and not alike):
            continue
        share = shared(connection, (table, column.name), (impressions, role.column))
        if share >= _ENOUGH_SHARED:
            return Role(column=column.name, why=f"{share:.0%} of its values are an impression's {what}")
    return None


def find_histories(
    connection: duckdb.DuckDBPyConnection, roles: Roles, rest: Sequence[FoundTable]
) -> list[HistoryTable]:
    """Tables with a list of Pins for each user."""
    found = []
    for table in rest:
        user = _same_values(connection, roles.impressions, roles.user, table, "user")
        pins = _listed_pins(connection, roles, table, user) if user else None
        if user and pins:
            found.append(HistoryTable(table=table, user=user, pins=pins[0], separator=pins[1], time=_time(table)))
    return found


def _listed_pins(
    connection: duckdb.DuckDBPyConnection, roles: Roles, table: FoundTable, user: Role
) -> tuple[Role, str | None] | None:
    """The column whose lists, or texts between separators, consist of Pins."""
    for column in table.columns.values():
        separators = (None,) if column.reading == "list" else SEPARATORS if column.reading == "text" else ()
        for separator in separators if column.name != user.column else ():
            known = (roles.impressions, roles.pin.column)
            share = shared_elements(connection, (table, column.name), separator, known)
            if share >= _ENOUGH_SHARED:
                why = f"lists; {share:.0%} of their elements are an impression's Pin"
                return Role(column=column.name, why=why), separator
    return None


def _reference(
    connection: duckdb.DuckDBPyConnection, impressions: FoundTable, unique: Sequence[str], table: FoundTable
) -> tuple[str, Role] | None:
    """The impressions' own id and the column of a table that refers to it.

    Small numbers are found among any ids, so that numbers must also be called like what they refer to.
    """
    for column in _keys(table):
        for name in unique:
            alike = named_like(column.name, IMPRESSION) or not set(words(column.name)).isdisjoint(words(name))
            if column.reading != "text" and not alike:
                continue
            share = shared(connection, (table, column.name), (impressions, name))
            if share >= _ENOUGH_SHARED:
                return name, Role(column=column.name, why=f"{share:.0%} of its values are an impression's {name}")
    return None


def _kind(columns: Iterable[ColumnProfile]) -> Role | None:
    for each in columns:
        if each.reading == "text" and each.separator is None and 2 <= each.distinct <= 20 and each.distinct < each.rows:
            return Role(column=each.name, why=f"{each.distinct} different texts, {each.examples()}")
    return None


def _value(columns: Iterable[ColumnProfile]) -> Role | None:
    for each in columns:
        if each.reading in ("number", "integer") and named_like(each.name, AMOUNT):
            return Role(column=each.name, why=f"numbers {each.examples()}")
    return None


def _listed(tables: Sequence[FoundTable]) -> str:
    return "; ".join(f"{table.pattern} with {table.listed()}" for table in tables)


def _refusal(what: str, table: FoundTable, remedy: str) -> str:
    return f"the impressions, {table.pattern}, must have {what} (got columns {table.listed()}); {remedy}"
