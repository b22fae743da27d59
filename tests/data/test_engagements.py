"""Engagements before a period as matrices: nothing from the period itself, the corpus' Pins alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.small_repo import SmallRepo
from trainers.data.engagements import read_engagements
from trainers.data.event_log import EventLog
from trainers.data.retrieval_data import RetrievalPeriod


def period(repo: SmallRepo) -> RetrievalPeriod:
    """The test days."""
    window = repo.spec.window
    return repo.reader.period(window.test_from, window.until, (1,))


def test_engagements_are_the_clicks_before_the_period(small_repo: SmallRepo) -> None:
    asked = period(small_repo)
    asked = replace(asked, user_ids=np.append(asked.user_ids, 10_000))
    found = read_engagements(small_repo.log, asked, histories=False)
    log = small_repo.log.impressions(asked.start.replace(year=2000), asked.start).to_pandas()
    clicked = log[(log["click"] == 1) & log["pin_id"].isin(asked.pin_ids)]
    pairs = clicked.groupby("user_id")["pin_id"].agg(set)
    assert found.everyone.shape == (len(pairs), len(asked.pin_ids))
    assert found.everyone.sum() == sum(map(len, pairs))
    assert found.queries.shape == (len(asked.user_ids), len(asked.pin_ids))
    for row, user in enumerate(asked.user_ids):
        pins = set(asked.pin_ids[found.queries[row].indices].tolist())
        assert pins == pairs.get(user, set())


def test_pins_outside_the_corpus_do_not_count(small_repo: SmallRepo) -> None:
    asked = period(small_repo)
    smaller = replace(asked, pin_ids=asked.pin_ids[::2])
    found = read_engagements(small_repo.log, smaller, histories=False)
    whole = read_engagements(small_repo.log, asked, histories=False)
    assert found.everyone.sum() == whole.everyone[:, ::2].sum()


def test_long_history_counts_where_it_was_known(small_repo: SmallRepo, tmp_path: Path) -> None:
    asked = period(small_repo)
    log = EventLog(with_history(small_repo, tmp_path, asked))
    alone, both = (read_engagements(log, asked, histories=histories) for histories in (False, True))
    assert alone.everyone.sum() == read_engagements(small_repo.log, asked, histories=True).everyone.sum()
    first, second = both.queries[0].indices, both.queries[1].indices
    assert len(first) == len(asked.pin_ids)
    assert second.tolist() == alone.queries[1].indices.tolist()


def with_history(repo: SmallRepo, folder: Path, asked: RetrievalPeriod) -> Path:
    """The log with a history: the first user met all Pins before the period, the second when it begins."""
    for part in repo.log.path.iterdir():
        (folder / part.name).symlink_to(part)
    spec = repo.spec.model_copy(update={"histories": ("watched",)})
    (folder / "spec.json").unlink()
    (folder / "spec.json").write_text(spec.model_dump_json())
    history = {
        "user_id": asked.user_ids[:2],
        "event_timestamp": pa.array([asked.start - timedelta(seconds=1), asked.start], pa.timestamp("us", tz="UTC")),
        "pin_ids": [asked.pin_ids.tolist()] * 2,
    }
    pq.write_table(pa.table(history), folder / "history_watched.parquet")
    return folder
