"""What ingestion counted, as it is written to the event log's `report.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

OUTSIDE_LOG, OF_NONE = "conversion of an impression outside the log", "conversion of no impression"
EXPECTED = frozenset({OUTSIDE_LOG, OF_NONE})
"""Why rows are set aside though nothing is wrong with them: a log begins and ends somewhere, and people also buy what
was not shown to them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableReport:
    """What became of the rows of one staged table."""

    read: int
    """Rows in the staged file."""
    kept: int
    """Rows in the event log."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Quarantined rows by reason, most frequent first."""
    ignored_columns: tuple[str, ...] = ()
    """Staged columns that the dataset doesn't declare."""

    @property
    def quarantined(self) -> int:
        """Rows that were set aside."""
        return self.read - self.kept

    @property
    def faulty(self) -> int:
        """Rows that were set aside for a fault: all but those `EXPECTED`, unless hardly anything fits together."""
        outside = self.reasons.get(OUTSIDE_LOG, 0)
        if outside > self.kept or not self.kept:
            return self.quarantined
        return self.quarantined - outside - self.reasons.get(OF_NONE, 0)

    @property
    def faulty_share(self) -> float:
        """Share of the rows that were set aside for a fault, 0 for an empty table."""
        return self.faulty / self.read if self.read else 0.0


def _mixed(rate: float | None) -> bool:
    return rate is not None and rate not in (0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestReport:
    """What ingestion read, kept and noticed."""

    tables: dict[str, TableReport]
    """Per staged table, what became of its rows."""
    days: dict[str, int] = field(default_factory=dict)
    """Impressions per UTC date, from the first to the last, empty dates included."""
    surfaces: dict[str, int] = field(default_factory=dict)
    """Impressions per surface, most frequent first."""
    label_rates: dict[str, float | None] = field(default_factory=dict)
    """Per label the share of ones, none where it is never defined; per kind the conversions per impression."""
    warnings: tuple[str, ...] = ()
    """What is allowed but worth a look."""

    @property
    def days_without_impressions(self) -> tuple[str, ...]:
        """Dates inside the log on which nothing was shown."""
        return tuple(day for day, count in self.days.items() if count == 0)

    def with_warnings(self, more: Iterable[str] = ()) -> IngestReport:
        """The same report with its warnings worked out, and others after them."""
        single = [(name, rate) for name, rate in self.label_rates.items() if not _mixed(rate)]
        found = [f"label {name} has one class only (rate {rate})" for name, rate in single]
        if self.days_without_impressions:
            found.append(f"days without impressions: {', '.join(self.days_without_impressions)}")
        for name, table in self.tables.items():
            if table.ignored_columns:
                found.append(f"undeclared columns of {name} were left out: {', '.join(table.ignored_columns)}")
        return dataclasses.replace(self, warnings=(*found, *more))

    def to_json(self) -> str:
        """Indented JSON with stable keys."""
        raw = dataclasses.asdict(self)
        for name, table in self.tables.items():
            raw["tables"][name]["quarantined"] = table.quarantined
        raw["days_without_impressions"] = self.days_without_impressions
        return json.dumps(raw, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> IngestReport:
        """Report read back from `to_json`."""
        raw = json.loads(text)
        del raw["days_without_impressions"]
        for table in raw["tables"].values():
            del table["quarantined"]
            table["ignored_columns"] = tuple(table["ignored_columns"])
        raw["tables"] = {name: TableReport(**table) for name, table in raw["tables"].items()}
        raw["warnings"] = tuple(raw["warnings"])
        return cls(**raw)
