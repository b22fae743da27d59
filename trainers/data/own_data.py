"""A user's own parquet or CSV files as a dataset, declared in YAML and without code; see `docs/own_data.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import duckdb
from pydantic import Field, field_validator, model_validator

from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.attribution import attributed, attributed_columns, is_attributed
from trainers.data.columns import CONVERSIONS, IMPRESSIONS, PINS, USERS, table_columns
from trainers.data.connection import connect, literal, moment
from trainers.data.dataset import DatasetSpec, SpecError, Strict, load_yaml
from trainers.data.delimited import complaint
from trainers.data.ingest import Progress
from trainers.data.raw_days import EVENT_TABLES, stage_events
from trainers.data.source_files import KeyType, SourceReader, SourceTable, hashed_key
from trainers.data.source_places import write_columns


class Keys(Strict):
    """Types of the keys in the files; texts become numbers by a hash that never changes."""

    user: KeyType = "int64"
    pin: KeyType = "int64"
    impression: KeyType = "int64"

    def by_column(self) -> dict[str, KeyType]:
        """The same by column of the event log."""
        return {"user_id": self.user, "pin_id": self.pin, "impression_id": self.impression}


class Tables(Strict):
    """The tables that a dataset consists of."""

    impressions: SourceTable
    conversions: tuple[SourceTable, ...] = ()
    """One table, or a list of several with kinds of their own."""
    users: SourceTable | None = None
    pins: SourceTable | None = None
    histories: dict[str, SourceTable] = Field(default_factory=dict)

    @field_validator("conversions", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return given if isinstance(given, list | tuple) else [given]

    def named(self) -> dict[str, dict[str, SourceTable]]:
        """Sources of each table by their key in the YAML, by the table's name in the event log."""
        tables = {USERS: {"users": self.users}, PINS: {"pins": self.pins}, IMPRESSIONS: {IMPRESSIONS: self.impressions}}
        several = len(self.conversions) > 1
        conversions = {
            f"conversions.{i}" if several else "conversions": each for i, each in enumerate(self.conversions)
        }
        histories = {f"history_{name}": {f"histories.{name}": each} for name, each in self.histories.items()}
        found = {**tables, CONVERSIONS: conversions, **histories}
        kept = {name: {key: each for key, each in sources.items() if each} for name, sources in found.items()}
        return {name: sources for name, sources in kept.items() if sources}


class OwnDataSpec(DatasetSpec):
    """A dataset's declaration together with where its tables come from."""

    tables: Tables
    keys: Keys = Keys()

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        for declared, table, what in (
            (self.conversions, self.tables.conversions, "conversions"),
            (self.user_attributes, self.tables.users, "users"),
            (self.pin_attributes, self.tables.pins, "pins"),
        ):
            if declared and not table:
                raise ValueError(f"tables must have {what} because some are declared (got none); add tables.{what}")
        if self.tables.conversions and not self.conversions:
            raise ValueError("conversions must be declared for tables.conversions (got none); add their kinds")
        referring = [each for each in self.tables.conversions if not is_attributed(each)]
        if referring and "impression_id" not in self.tables.impressions.columns:
            raise ValueError(
                "tables.impressions.columns must map impression_id because conversions refer to it (got none); map it, "
                "or map user_id and pin_id of the conversions"
            )
        partial = [each for each in (self.tables.impressions, *self.tables.conversions) if not each.covers_all]
        if partial or any(not each.covers_all for each in self.tables.histories.values()):
            raise ValueError("covers_all must be said of tables.users and tables.pins alone (got another); remove it")
        if set(self.histories) != set(self.tables.histories):
            raise ValueError(
                f"histories and tables.histories must name the same (got {sorted(self.histories)} and "
                f"{sorted(self.tables.histories)})"
            )
        return self


class OwnDataAdapter:
    """Stages the tables that a YAML declares."""

    def __init__(self, yaml: Path, declared: OwnDataSpec) -> None:
        self.name = declared.name
        self._yaml = yaml
        self._declared = declared

    def spec(self, options: AdapterOptions) -> DatasetSpec:  # noqa: ARG002
        """Declaration of the dataset."""
        return DatasetSpec.model_validate(self._declared.model_dump(exclude={"tables", "keys"}))

    def source_files(self) -> list[Path]:
        """Every file that the YAML reads, for telling whether the data has changed.

        Raises:
            SpecError: A glob matches nothing.
        """
        return [
            file for table in self._declared.tables.named() for each in self._readers(table) for file in each.files()
        ]

    def stage(self, staging: Path, options: AdapterOptions, progress: Progress) -> None:
        """Write every declared table with canonical columns, unchecked.

        Raises:
            SpecError: The YAML names a file or a column that is not there.
        """
        tables = self._declared.tables.named()
        readers = [reader for table in tables for reader in self._readers(table)]
        write_columns(staging, {file: names for each in readers for file, names in each.mapped_columns().items()})
        with connect(temp=staging / "spill") as connection:
            for done, table in enumerate(tables):
                progress(f"reading {table}", done / len(tables))
                self._stage_table(connection, table, staging, options)
            for entity, kind in (("user", self._declared.keys.user), ("pin", self._declared.keys.pin)):
                if kind == "string":
                    self._write_keys(connection, entity, staging)

    def _stage_table(
        self, connection: duckdb.DuckDBPyConnection, table: str, staging: Path, options: AdapterOptions
    ) -> None:
        query = " UNION ALL BY NAME ".join(self._query(connection, table, reader) for reader in self._readers(table))
        if not all(reader.table.covers_all for reader in self._readers(table)):
            query = f"({query}) UNION ALL BY NAME ({self._others(connection, table, query)})"
        if options.scale < 1.0 and table == CONVERSIONS:
            kept = literal(staging / f"{IMPRESSIONS}.parquet")
            query = f"FROM ({query}) WHERE impression_id::VARCHAR IN (SELECT impression_id::VARCHAR FROM {kept})"
        elif table != PINS:
            query = f"FROM ({query}) WHERE {options.keeps('user_id')}"
        # Of a share of the users, conversions are found through all impressions.
        since = options.since if table in EVENT_TABLES and options.scale == 1.0 else None
        try:
            stage_events(connection, query, staging, table, since)
        except duckdb.Error as error:
            raise SpecError(
                f"{self._yaml}: tables.{table} must be readable as declared (got: {complaint(error)})"
            ) from error

    def _query(self, connection: duckdb.DuckDBPyConnection, table: str, reader: SourceReader) -> str:
        columns, keys = table_columns(self._declared, table), self._declared.keys.by_column()
        if table != CONVERSIONS or not is_attributed(reader.table):
            return reader.query(connection, columns, keys)
        shown, impressions = table_columns(self._declared, IMPRESSIONS), self._query_impressions(connection)
        conversions = reader.query(connection, attributed_columns(columns, shown), keys)
        return attributed(conversions, impressions, self._declared.conversions)

    def _others(self, connection: duckdb.DuckDBPyConnection, table: str, query: str) -> str:
        """A query for the users or Pins that impressions name and a table of them lacks: keys without attributes."""
        key = "pin_id" if table == PINS else "user_id"
        (reader,) = self._readers(table)
        since = reader.table.holds_from or self._declared.window.features_from
        return (
            f"SELECT DISTINCT {key}, {moment(since)} AS event_timestamp FROM ({self._query_impressions(connection)}) "
            f"WHERE {key} IS NOT NULL AND {key}::VARCHAR NOT IN (SELECT {key}::VARCHAR FROM ({query}) "
            f"WHERE {key} IS NOT NULL)"
        )

    def _query_impressions(self, connection: duckdb.DuckDBPyConnection) -> str:
        columns = table_columns(self._declared, IMPRESSIONS)
        return self._readers(IMPRESSIONS)[0].query(connection, columns, self._declared.keys.by_column())

    def _write_keys(self, connection: duckdb.DuckDBPyConnection, entity: str, staging: Path) -> None:
        """The texts behind the numbers of an entity.

        Raises:
            SpecError: Two texts got one number.
        """
        name, path = f"{entity}_id", staging / f"keys_{entity}.parquet"
        columns = (name, "pin_ids") if entity == "pin" else (name,)
        found = [
            texts
            for table in self._declared.tables.named()
            for reader in self._readers(table)
            for column in columns
            if (texts := reader.key_texts(connection, column))
        ]
        keys = f"SELECT DISTINCT {hashed_key('key')} AS {name}, key FROM ({' UNION ALL '.join(found)})"
        connection.execute(f"COPY ({keys} ORDER BY {name}) TO {literal(path)} (FORMAT parquet)")
        shared = connection.execute(
            f"SELECT {name}, min(key), max(key) FROM {literal(path)} GROUP BY {name} HAVING count(*) > 1"
        ).fetchone()
        if shared:
            raise SpecError(
                f"{self._yaml}: keys.{entity} must give every text its own number (got one for {shared[1:]})"
            )

    def _readers(self, table: str) -> list[SourceReader]:
        sources = self._declared.tables.named()[table]
        return [SourceReader(self._yaml, f"tables.{key}", source) for key, source in sources.items()]


def load(path: Path) -> tuple[DatasetSpec, OwnDataAdapter]:
    """The dataset that a YAML declares, and the adapter that stages its files.

    Raises:
        SpecError: The YAML is not readable or says something that cannot be; the text names file, key and value.
    """
    adapter = OwnDataAdapter(path, load_yaml(path, OwnDataSpec))
    return adapter.spec(AdapterOptions()), adapter
