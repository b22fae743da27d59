"""Logged answers and the clicks that followed, as impressions of the canonical event log.

The event timestamp of an impression is its answer's `as_of`: an offline join at that moment finds the features that it
was served with.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import yaml

from feature_repo.request_log.layout import ANSWER_ID, ANSWERED, AS_OF, PINS, POSITION, RESPONSES
from trainers.data.columns import IMPRESSIONS
from trainers.data.columns import PINS as PINS_TABLE
from trainers.data.connection import connect, literal, quote
from trainers.data.event_log import EventLog
from trainers.data.source_files import hashed_key
from trainers.progress import SILENT, Progress
from trainers.request_log.rows import RequestLogError, releases_of

DATASET_FILE: Final = "dataset.yaml"
LABEL_COLUMN: Final = "label"
CLICK_COLUMNS: Final = ("request_id", "pin_id")
READERS: Final = {".parquet": "read_parquet", ".csv": "read_csv"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What became of a request log."""

    answers: int
    impressions: int
    labels: dict[str, int]
    """Positives by label, of those that the clicks know."""
    clicks: int
    """Rows of the clicks."""
    unmatched: int
    """Clicks on a Pin that no logged answer to that request showed."""
    mean_pctr: float | None
    """Mean predicted probability of a click; none without impressions."""
    click_rate: float | None
    """Share of the impressions with the label that `pctr` predicts; none where the clicks don't know it."""


def write_impressions(
    log: Path,
    event_log: EventLog,
    clicks: Sequence[Path],
    out: Path,
    *,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> Served:
    """Write `impressions/date=YYYY-MM-DD.parquet` and a dataset's declaration that reads them.

    Args:
        log: Folder of the request log.
        event_log: Of the run, whose declaration names the labels, and whose users and Pins the new dataset takes over.
        clicks: Parquet or CSV files with `request_id`, `pin_id`, and optionally `label`, a label of the dataset, and
            `event_timestamp`. Without `label` a row is a positive of the label that `pctr` predicts.
        out: Folder to be made; nothing is left of it when anything fails.
        dry_run: Count everything, write nothing.

    Raises:
        RequestLogError: There are no answers, or the clicks are not as above.
        ValueError: The folder exists.
    """
    if out.exists():
        raise ValueError(f"--out must not exist yet (got {out}); delete it or name another")
    files = [file for each in releases_of(log).values() for file in each]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="headwater-") as temp,
            connect(temp=Path(temp)) as connection,
            progress.stage("join answers and clicks", 3) as stage,
        ):
            joined = _Joined(connection, event_log)
            joined.read_answers([file.responses for file in files], [file.pins for file in files])
            stage.advance()
            joined.read_clicks(clicks)
            stage.advance()
            found = joined.counts()
            if dry_run:
                return found
            joined.write(partial / IMPRESSIONS)
            stage.advance()
        (partial / DATASET_FILE).write_text(_declaration(event_log))
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


class _Joined:
    """Answers, their Pins and the clicks in one DuckDB connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, event_log: EventLog) -> None:
        self._connection, self._spec, self._has_clicks = connection, event_log.spec, False
        # Where Pins have texts for keys, answers and clicks name those.
        has_texts = (event_log.path / "keys_pin.parquet").exists()
        self._pin_key = hashed_key("pin_id") if has_texts else "pin_id::BIGINT"
        (self._predicted,) = (task.label for task in self._spec.tasks if task.name == self._spec.ctr_task)

    def read_answers(self, responses: Sequence[Path], pins: Sequence[Path]) -> None:
        columns = (ANSWER_ID, "request_id", ANSWERED, AS_OF, "user_id", "surface", "sampling_rate")
        self._connection.execute(
            f"CREATE TEMP VIEW {RESPONSES} AS SELECT {', '.join(columns)} FROM {_parquet(responses)}"
        )
        self._connection.execute(
            f"CREATE TEMP TABLE shown AS SELECT {hashed_key(f'{ANSWER_ID} || pin_id')} AS impression_id, "
            f"request_id, {ANSWERED}, user_id, pin_id, surface, {AS_OF} AS event_timestamp, "
            f"{POSITION}::INTEGER AS position, sampling_rate, pctr "
            f"FROM {RESPONSES} JOIN (SELECT {ANSWER_ID}, pin_id, {POSITION}, pctr FROM {_parquet(pins)}) AS {PINS} "
            f"USING ({ANSWER_ID})"
        )

    def read_clicks(self, clicks: Sequence[Path]) -> None:
        """Each click belongs to the newest answer to its request that showed the Pin, and is not later than it."""
        self._has_clicks = bool(clicks)
        rows = " UNION ALL ".join(self._click_rows(file) for file in clicks) or _NO_CLICKS
        self._connection.execute(f"CREATE TEMP TABLE clicks AS SELECT row_number() OVER () AS row, * FROM ({rows})")
        if unknown := self._column(f"SELECT DISTINCT label FROM clicks WHERE label NOT IN ({self._known()})"):
            raise RequestLogError(
                f"label of the clicks must be one of {', '.join(self._spec.labels)} (got {', '.join(unknown)})"
            )
        self._connection.execute(
            "CREATE TEMP TABLE matched AS SELECT row, label, "
            f"arg_max(impression_id, {ANSWERED}) FILTER (WHERE {_NOT_LATER}) AS impression_id "
            "FROM clicks LEFT JOIN shown USING (request_id, pin_id) GROUP BY row, label"
        )

    def write(self, folder: Path) -> None:
        """One file per UTC date."""
        folder.mkdir(parents=True)
        columns = ["impression_id", "user_id", "pin_id", "surface", "event_timestamp"]
        optional = ["position", "sampling_rate"]
        labels = [f"{self._label_sql(label)} AS {quote(label)}" for label in self._spec.labels]
        query = f"SELECT {', '.join((*columns, *labels, *optional))} FROM shown"
        for day in self._column("SELECT DISTINCT event_timestamp::DATE::VARCHAR FROM shown ORDER BY 1"):
            self._connection.execute(
                f"COPY ({query} WHERE event_timestamp::DATE = DATE '{day}' ORDER BY event_timestamp, impression_id) "
                f"TO {literal(folder / f'date={day}.parquet')} (FORMAT parquet, COMPRESSION zstd)"
            )

    def counts(self) -> Served:
        """What was read and written."""
        answers, impressions, mean = self._one(
            f"SELECT (SELECT count(*) FROM {RESPONSES}), count(*), avg(pctr) FROM shown"
        )
        clicks, unmatched = self._one("SELECT count(*), count(*) FILTER (WHERE impression_id IS NULL) FROM matched")
        positives = dict(
            self._connection.execute(
                "SELECT label, count(DISTINCT impression_id) FROM matched WHERE impression_id IS NOT NULL GROUP BY 1"
            ).fetchall()
        )
        known = self._predicted in self._known_labels()
        rate = positives.get(self._predicted, 0) / impressions if known and impressions else None
        return Served(
            answers=answers,
            impressions=impressions,
            labels={label: positives.get(label, 0) for label in self._known_labels()},
            clicks=clicks,
            unmatched=unmatched,
            mean_pctr=mean,
            click_rate=rate,
        )

    def _label_sql(self, label: str) -> str:
        """1 where it was clicked, 0 where not, null for a label that the clicks know nothing of."""
        if label not in self._known_labels():
            return "NULL::TINYINT"
        matched = f"SELECT impression_id FROM matched WHERE label = {literal(label)} AND impression_id IS NOT NULL"
        return f"(impression_id IN ({matched}))::TINYINT"

    def _known_labels(self) -> list[str]:
        """Labels that the clicks name, and always the predicted one where there are files of clicks."""
        named = set(self._column("SELECT DISTINCT label FROM clicks"))
        named |= {self._predicted} if self._has_clicks else set()
        return [label for label in self._spec.labels if label in named]

    def _click_rows(self, file: Path) -> str:
        reader = READERS.get(file.suffix)
        if reader is None or not file.is_file():
            raise RequestLogError(f"--clicks must be a parquet or CSV file (got {file}); give one that is there")
        source = f"{reader}({literal(file)})"
        columns = set(self._column(f"SELECT column_name FROM (DESCRIBE FROM {source})"))
        if absent := set(CLICK_COLUMNS) - columns:
            raise RequestLogError(f"{file} must have {', '.join(CLICK_COLUMNS)} (lacks {', '.join(sorted(absent))})")
        label = "label::VARCHAR" if LABEL_COLUMN in columns else literal(self._predicted)
        clicked = "event_timestamp::TIMESTAMPTZ" if "event_timestamp" in columns else "NULL::TIMESTAMPTZ"
        keys = f"request_id::VARCHAR AS request_id, {self._pin_key} AS pin_id"
        return f"SELECT {keys}, {label} AS label, {clicked} AS clicked FROM {source}"

    def _known(self) -> str:
        return ", ".join(literal(label) for label in self._spec.labels)

    def _column(self, query: str) -> list[str]:
        return [str(row[0]) for row in self._connection.execute(query).fetchall()]

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._connection.execute(query).fetchone()
        assert row is not None
        return tuple(row)


_NOT_LATER = f"clicked IS NULL OR {ANSWERED} <= clicked"
_NO_CLICKS = (
    "SELECT NULL::VARCHAR AS request_id, NULL::BIGINT AS pin_id, NULL::VARCHAR AS label, NULL::TIMESTAMPTZ AS clicked "
    "WHERE false"
)


def _parquet(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(map(literal, files))}], hive_partitioning = false, union_by_name = true)"


def _declaration(event_log: EventLog) -> str:
    """The run's dataset with the served impressions in place of its own; its window is to be moved to them."""
    spec = event_log.spec
    declared: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    declared |= {"histories": [], "conversions": [], "tasks": _tasks_of_impressions(declared), "cvr_task": None}
    tables: dict[str, Any] = {
        IMPRESSIONS: {"files": f"{IMPRESSIONS}/*.parquet", "columns": {"impression_id": "impression_id"}}
    }
    tables[IMPRESSIONS]["labels"] = {label: label for label in spec.labels}
    for name, path in (("users", event_log.users_path), (PINS_TABLE, event_log.pins_path)):
        if path is not None:
            tables[name] = {"files": str(path.resolve())}
    return yaml.safe_dump(declared | {"tables": tables}, sort_keys=False, allow_unicode=True)


def _tasks_of_impressions(declared: dict[str, Any]) -> list[dict[str, Any]]:
    return [task for task in declared["tasks"] if task["label"] in declared["labels"]]
