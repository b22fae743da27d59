"""What a column of a file is taken for."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainers.data.connection import connect
from trainers.data.discovery.profiles import ColumnProfile, moment_sql, profile


@pytest.fixture(name="connection")
def connection_fixture(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    return connect(temp=tmp_path / "spill")


def profiled(connection: duckdb.DuckDBPyConnection, values: list[object], name: str = "x") -> ColumnProfile:
    table = pa.table({name: pa.array(values)})
    connection.register("t", table)
    kind = connection.execute("DESCRIBE FROM t").fetchall()[0][1]
    return profile(connection, "t", name, kind)


@pytest.mark.parametrize(
    ("values", "reading"),
    [
        (["0", "1", "1"], "binary"),
        ([True, False], "binary"),
        (["7", "12", "-3"], "integer"),
        ([1.0, 2.0, 3.0, None], "integer"),
        (["0.5", "2", "1e3"], "number"),
        (["home", "search", ""], "text"),
        (["2024-03-01", "2024-03-02"], "time"),
        ([[1, 2], [3]], "list"),
        ([[0.5, 2.0], [1.0, 1.5]], "vector"),
        ([None, ""], "empty"),
    ],
)
def test_values_are_read_as_what_they_are(
    connection: duckdb.DuckDBPyConnection, values: list[object], reading: str
) -> None:
    assert profiled(connection, values).reading == reading


@pytest.mark.parametrize(
    ("name", "value", "time"),
    [
        ("shown_at", 1_709_251_450, "unix_s"),
        ("shown_at", 1_709_251_450_000, "unix_ms"),
        ("price", 1_709_251_450, None),
        ("ts", "2024-03-01 00:04:10", "naive"),
        ("ts", "2024-03-01T00:04:10Z", "zoned"),
        ("ts", "2024-03-01T01:04:10+01:00", "zoned"),
    ],
)
def test_moments_are_told_from_amounts(
    connection: duckdb.DuckDBPyConnection, name: str, value: object, time: str | None
) -> None:
    found = profiled(connection, [value, value], name)
    assert found.time == time
    if time is not None:
        shown = connection.execute(f"SELECT ({moment_sql(found)})::VARCHAR FROM t").fetchall()[0][0]
        assert shown == "2024-03-01 00:04:10"


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (["wood|blue", "wood", "blue|wood", "blue"], "|"),
        (["a;b", "b;a", "a"], ";"),
        (["Apron, blue", "Bowl, green", "Cup, white"], None),
        (["(0,10]", "(10,50]", "(0,10]", "(0,10]", "(10,50]"], None),
    ],
)
def test_tags_have_a_separator_and_sentences_and_ranges_none(
    connection: duckdb.DuckDBPyConnection, values: list[object], separator: str | None
) -> None:
    assert profiled(connection, values).separator == separator


def test_column_with_a_value_of_its_own_in_every_row_is_unique(connection: duckdb.DuckDBPyConnection) -> None:
    assert profiled(connection, ["a", "b", "c"]).is_unique
    assert not profiled(connection, ["a", "b", "b"]).is_unique
    assert not profiled(connection, ["a", "b", None]).is_unique


def test_a_few_faults_do_not_change_the_reading(connection: duckdb.DuckDBPyConnection) -> None:
    assert profiled(connection, [*map(str, range(199)), "oops"]).reading == "integer"


def test_files_that_differ_in_numbers_only_are_one_table(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    from trainers.data.discovery.folder import find_tables

    for day in ("2024-03-01", "2024-03-02"):
        pq.write_table(pa.table({"user": [1, 2]}), tmp_path / f"events-{day}.parquet")
    (tmp_path / "part1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "part2.csv").write_text("c\n1\n")
    found = {table.pattern: (table.num_files, table.num_rows) for table in find_tables(connection, tmp_path)}
    assert found == {"events-*.parquet": (2, 4), "part1.csv": (1, 1), "part2.csv": (1, 1)}
