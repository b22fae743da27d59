"""Planted knowledge of the future is found in the repo of a run, and an honest run passes."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo.contract import DATA_CUTOFF_FIELD, service_name
from tests.integration.runs import headwater, refusal
from trainers.data.event_log import EventLog
from trainers.data.frames import point_in_time_frame
from trainers.data.leaks import LeakError, assert_no_leak

pytestmark = pytest.mark.slow

SERVICE = "ranking__ctr_v1__cvr_v1"
GENERATED_QUALITY = ("pin_attributes",)
"""The generated Pins' `quality` is a noisy view of their true popularity, known from the start: looked up, trusted."""


def offline(repo: Path) -> Path:
    return repo / "data" / "offline"


def copied(run: Path, to: Path) -> Path:
    """A run whose feature repo may be changed."""
    shutil.copytree(run, to)
    return to


def assert_honest(run: Path, service: str, **options: Any) -> None:
    """Check the training and test days of a run."""
    log = EventLog(run / "event_log")
    window = log.spec.window
    rows = log.task_labels(window.train_from, window.until, known_by=window.until)
    frame = point_in_time_frame(run / "feature_repo", rows, service)
    assert_no_leak(run / "feature_repo", frame, service, ["click"], log.spec.publish_delay, **options)


def test_untouched_run_passes_and_says_so(finished_run: Path) -> None:
    assert_honest(finished_run, SERVICE, trusted=GENERATED_QUALITY)
    marker = (finished_run / "steps" / "materialize.json").read_text()
    assert '"leak_checked": 1' in marker


def test_embedding_from_the_future_stops_a_run(finished_run: Path, tmp_path: Path) -> None:
    """A model that saw a day more than its stamp says: its data cut-off lies a day after it may be used."""
    run = copied(finished_run, tmp_path / "run")
    file = offline(run / "feature_repo") / "user_embedding_ctr_v1" / "date=2024-01-13.parquet"
    table = pq.ParquetFile(file).read()
    cutoffs = pc.add(table[DATA_CUTOFF_FIELD], pa.scalar(timedelta(days=1), pa.duration("us")))
    pq.write_table(table.set_column(table.schema.get_field_index(DATA_CUTOFF_FIELD), DATA_CUTOFF_FIELD, cutoffs), file)
    with pytest.raises(LeakError, match=r"user_embedding_ctr_v1: .* 1:00:00 after data_cutoff \(got -1 day, 1:00:00"):
        assert_honest(run, SERVICE, trusted=GENERATED_QUALITY)
    (run / "steps" / "materialize.json").unlink()
    sentence = refusal("materialize", "--run", run)
    assert sentence.startswith("error: step materialize: user_embedding_ctr_v1: event_timestamp must be at least")
    assert "date=2024-01-13.parquet); rebuild that snapshot" in sentence


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to `apply` with a hundred impressions a Pin, enough to tell luck from a true rate."""
    run = tmp_path_factory.mktemp("prepared") / "run"
    for step in ("ingest", "features", "apply"):
        headwater(step, "--dataset", "synthetic", "--recipe", "tiny", "--threads", "1", "--run", run)
    return run


def test_click_rate_over_the_whole_log_is_found_in_a_run(prepared: Path, tmp_path: Path) -> None:
    service = service_name("ranking")
    assert_honest(prepared, service, trusted=GENERATED_QUALITY)
    run = copied(prepared, tmp_path / "run")
    rates = dict(
        duckdb.sql(
            f"SELECT pin_id, avg(click) FROM read_parquet('{run}/event_log/impressions/*/*.parquet') GROUP BY pin_id"
        ).fetchall()
    )
    (file,) = (offline(run / "feature_repo") / "pin_attributes").iterdir()
    table = pq.ParquetFile(file).read()
    planted = pa.array(np.array([rates.get(pin, 0.0) for pin in table["pin_id"].to_pylist()]))
    place = table.schema.get_field_index("quality")
    pq.write_table(
        table.set_column(place, table.schema.field(place), planted.cast(table.schema.field(place).type)), file
    )
    with pytest.raises(LeakError, match=r"pin_attributes\.quality must not explain more of the click rates"):
        assert_honest(run, service, trusted=GENERATED_QUALITY)
