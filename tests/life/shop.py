"""A shop whose raw data grows: generated events in a file a day, of which a test shows as many as it likes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from trainers import pipeline, run_config
from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.adapters.synthetic import Synthetic
from trainers.data.event_log import EventLog, log_progress
from trainers.execution import execute
from trainers.life.home import Home
from trainers.markers import Marker
from trainers.progress import SilentProgress
from trainers.steps import RunContext

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
UNTIL = datetime(2024, 1, 8, tzinfo=UTC)
"""Where the window of the shop ends."""
NUM_DAYS = 12
DAY = timedelta(days=1)
TABLES = ("impressions", "conversions")
TRAINED = ("ingest", "features", "apply", "train", "publish", "materialize")
"""Steps after which versions are candidates; releases take longer to make than all of them."""


class Silent(SilentProgress):
    """Observer of a run that shows nothing."""

    def step_started(self, name: str, reason: str, position: int, num_steps: int) -> None:
        """Nothing to show."""

    def step_finished(self, marker: Marker, *, ran: bool, position: int, num_steps: int) -> None:
        """Nothing to show."""


class Shop:
    """Raw data in `raw/`, a file a day and table, all days waiting in `all/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.yaml = folder / "shop.yaml"
        self.raw, self.everything = folder / "raw", folder / "all"

    @classmethod
    def generate(cls, folder: Path) -> Shop:
        """Twelve days of a hundred users, of which the first seven are there."""
        shop, staging = cls(folder), folder / "staging"
        for path in (staging, shop.raw, shop.everything):
            path.mkdir(parents=True)
        options = AdapterOptions(seed=3, num_users=100, num_pins=60, num_days=NUM_DAYS)
        Synthetic().stage(staging, options, log_progress)
        for name in ("users", "pins"):
            shutil.copy(staging / f"{name}.parquet", shop.raw / f"{name}.parquet")
        for table in TABLES:
            rows = pq.read_table(staging / f"{table}.parquet")
            for number in range(NUM_DAYS):
                pq.write_table(_day(rows, number), shop.file(table, number, shop.everything))
        shutil.rmtree(staging)
        declared = Synthetic().spec(options).model_dump(mode="json", exclude_defaults=True)
        shop.yaml.write_text(yaml.safe_dump(declared | _declaration()))
        shop.show((UNTIL - FIRST).days)
        return shop

    def show(self, num_days: int) -> None:
        """Let the raw data hold so many days."""
        for number in range(num_days):
            for table in TABLES:
                shutil.copy(self.file(table, number, self.everything), self.file(table, number, self.raw))

    def file(self, table: str, number: int, folder: Path | None = None) -> Path:
        """Events of a day, counted from 0."""
        return (folder or self.raw) / f"{table}-{FIRST + number * DAY:%Y-%m-%d}.parquet"

    def change(self, table: str, number: int, rows: pa.Table) -> None:
        """Write a day of raw data anew."""
        pq.write_table(rows, self.file(table, number))

    def rows(self, table: str, number: int) -> pa.Table:
        """Raw rows of a day, wherever it waits."""
        return pq.ParquetFile(self.file(table, number, self.everything)).read()

    def copy(self, folder: Path) -> Shop:
        """The same shop in another folder; its runs keep reading the one they began with."""
        shutil.copytree(self.folder, folder)
        return Shop(folder)


def _day(rows: pa.Table, number: int) -> pa.Table:
    when, start = rows["event_timestamp"], FIRST + number * DAY
    bounds = (pa.scalar(moment, when.type) for moment in (start, start + DAY))
    return rows.filter(pc.and_(pc.greater_equal(when, next(bounds)), pc.less(when, next(bounds))))


def _declaration() -> dict[str, Any]:
    window = {"features_from": FIRST, "train_from": FIRST + 3 * DAY, "test_from": UNTIL - DAY, "until": UNTIL}
    files: dict[str, Any] = {name: {"files": f"raw/{name}-*.parquet"} for name in TABLES}
    files["impressions"]["columns"] = {"impression_id": "impression_id"}
    files |= {name: {"files": f"raw/{name}.parquet"} for name in ("users", "pins")}
    return {
        "name": "shop",
        "window": {name: moment.isoformat() for name, moment in window.items()},
        "quarantine_share": 0.02,
        "tables": files,
    }


def trained(shop: Shop, run: Path, steps: Sequence[str] = TRAINED, **options: Any) -> Home:
    """A run of the shop up to its embeddings online, or up to its models."""
    _execute(shop, run, steps, options)
    return Home.of_run(run)


def ingested(shop: Shop, run: Path, **options: Any) -> EventLog:
    """The event log of a run of the shop."""
    _execute(shop, run, TRAINED[:1], options)
    return EventLog(run / "event_log")


def _execute(shop: Shop, run: Path, names: Sequence[str], options: dict[str, Any]) -> None:
    config, _ = run_config.resolve(run=run, dataset=str(shop.yaml), recipe="tiny", num_seeds=1, threads=1, **options)
    steps = [step for step in pipeline.steps(config) if step.name in names]
    execute(steps, RunContext(config=config), Silent())


def moved(home: Home, shop: Shop, folder: Path) -> tuple[Home, Shop]:
    """A copy of a run and of its shop that a test may change."""
    there = shop.copy(folder / "shop")
    run = folder / "run"
    shutil.copytree(home.run, run)
    text = (run / "run.json").read_text().replace(str(shop.yaml), str(there.yaml))
    (run / "run.json").write_text(text)
    return Home.of_run(run), there
