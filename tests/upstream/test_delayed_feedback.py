"""Conversions that arrive late, generated with known rates and delays: what a model makes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.data.tiny_log import TIME, at
from tests.upstream import worlds
from trainers.data.dataset import Task
from trainers.data.label_stream import LabelStream, label_stream
from trainers.data.upstream_data import RowIndex
from trainers.progress import SilentProgress
from trainers.upstream.trainer import UpstreamExamples, UpstreamTrainer
from trainers.upstream.walk import select_rows

NUM_DAYS, ROWS_A_DAY, WINDOW_DAYS = 16, 200, 7
RATES = np.array([0.2, 0.5])
"""True conversion rates of two kinds of context."""
TASKS = (Task(name="click", label="click", domain="engagement"), Task(name="like", label="like", domain="conversion"))
DAY = 86_400_000_000


def generated() -> tuple[RowIndex, UpstreamExamples]:
    """Impressions of two kinds, whose conversions come after two days on average."""
    count = NUM_DAYS * ROWS_A_DAY
    random, stream = np.random.default_rng(4), worlds.rows(count)
    kind = random.integers(0, 2, count)
    stream.examples.inputs["context_categorical"] = np.stack([kind, np.zeros_like(kind)], axis=1).astype(np.int32)
    shown = round(at(1).timestamp() * 1e6) + np.sort(random.integers(0, NUM_DAYS * DAY, count))
    converted = random.random(count) < RATES[kind]
    delays = np.minimum(random.exponential(2.0, count), WINDOW_DAYS - 0.01) * DAY
    labels = np.stack([np.full(count, np.nan), converted], axis=1).astype(np.float32)
    index = RowIndex(
        frame=pa.table({"event_timestamp": pa.array(shown).cast(TIME)}),
        labels=labels,
        known_at=np.stack([shown, shown + WINDOW_DAYS * DAY], axis=1),
        converted_at={1: np.where(converted, shown + delays.astype(np.int64), 0)},
        until=at(1 + NUM_DAYS),
    )
    return index, stream


def entries(stream: LabelStream, rows: UpstreamExamples, fake_negatives: frozenset[str]) -> UpstreamExamples:
    """What a trainer learns from."""
    return UpstreamExamples(
        examples=replace(rows.examples.take(stream.rows), labels=stream.labels),
        user_ids=rows.user_ids[stream.rows],
        pin_ids=rows.pin_ids[stream.rows],
        fake_negatives=fake_negatives,
    )


def predicted(trainer: UpstreamTrainer, rows: UpstreamExamples) -> npt.NDArray[np.float64]:
    """Mean predicted rate of each kind."""
    logits = trainer.score(rows.examples, np.arange(len(rows.user_ids)))[:, 1]
    kind = rows.examples.inputs["context_categorical"][:, 0]
    return np.array([(1 / (1 + np.exp(-logits[kind == each].astype(np.float64)))).mean() for each in (0, 1)])


@pytest.mark.parametrize("weighted", [True, False])
def test_weighted_loss_recovers_the_true_rate_where_the_plain_one_is_too_low(weighted: bool) -> None:
    index, rows = generated()
    stream = label_stream(index, TASKS, [0, 1], fake_negatives=True)
    assert stream.fake_negatives == {"like"}
    data = entries(stream, rows, stream.fake_negatives if weighted else frozenset())
    trainer = worlds.trainer(contrastive_weight=0.0, batch_size=100)
    with SilentProgress().stage("fit") as stage:
        for day in range(NUM_DAYS):
            cutoff, random = at(2 + day), np.random.default_rng(day)
            before = cutoff - timedelta(days=1) if day else None
            known = np.concatenate(select_rows(stream.known_at, before, cutoff, 1.0, random))
            assert (stream.known_at[known] < round(cutoff.timestamp() * 1e6)).all()
            trainer.fit(data, known, lr=1e-2 if day < 8 else 2e-3, rng=random, stage=stage)
    found = predicted(trainer, rows)
    np.testing.assert_allclose(found, RATES if weighted else RATES / (1 + RATES), atol=0.05)
    if not weighted:
        assert (found < RATES).all()
