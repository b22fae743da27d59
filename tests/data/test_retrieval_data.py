"""Periods of retrieval: corpus, engaged and seen Pins, and popularity, against the log read row by row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from feature_repo.encoding import hash_ids
from tests.data.small_repo import SmallRepo
from tests.data.tiny_log import at
from trainers.data.retrieval_data import PIN_BUCKET, RetrievalPeriod, with_pin_bucket


@pytest.fixture(scope="module")
def period(small_repo: SmallRepo) -> RetrievalPeriod:
    """The test days."""
    window = small_repo.spec.window
    return small_repo.reader.period(window.test_from, window.until, (1, 7))


def impressions(small_repo: SmallRepo, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Rows of the log."""
    rows: list[dict[str, Any]] = small_repo.log.impressions(start, end).to_pylist()
    return rows


def test_period_asks_for_new_engagements_and_hides_what_was_met(small_repo: SmallRepo, period: RetrievalPeriod) -> None:
    window = small_repo.spec.window
    met: dict[int, set[int]] = {}
    for row in impressions(small_repo, at(1), window.test_from):
        met.setdefault(row["user_id"], set()).add(row["pin_id"])
    wanted: dict[int, set[int]] = {}
    for row in impressions(small_repo, window.test_from, window.until):
        if row["click"] == 1 and row["pin_id"] not in met.get(row["user_id"], set()):
            wanted.setdefault(row["user_id"], set()).add(row["pin_id"])
    assert len(wanted) > 10
    assert period.user_ids.tolist() == sorted(wanted)
    for user, relevant, seen in zip(period.user_ids.tolist(), period.relevant, period.seen, strict=True):
        assert set(period.pin_ids[relevant].tolist()) == wanted[user]
        assert set(period.pin_ids[seen].tolist()) == met.get(user, set())
        assert not set(relevant) & set(seen)


def test_corpus_is_sorted_and_holds_only_pins_known_by_then(small_repo: SmallRepo) -> None:
    corpus = small_repo.reader.corpus(small_repo.spec.window.test_from)
    assert corpus.tolist() == list(range(30))


def test_log_popularity_counts_the_days_before_alone(small_repo: SmallRepo, period: RetrievalPeriod) -> None:
    test_from = small_repo.spec.window.test_from
    for days in (1, 7):
        rows = impressions(small_repo, test_from - timedelta(days=days), test_from)
        counts = Counter(row["pin_id"] for row in rows if row["click"] == 1)
        smoothed = np.array([counts[pin] + 0.1 for pin in period.pin_ids.tolist()])
        np.testing.assert_allclose(period.log_popularity[days], np.log(smoothed / smoothed.sum()), rtol=1e-5)


def test_log_popularity_ignores_pins_outside_the_corpus(small_repo: SmallRepo) -> None:
    shares = small_repo.reader.log_popularity(np.array([3, 1000]), small_repo.spec.window.test_from, 7)
    assert shares[0] > shares[1]
    assert np.exp(shares).sum() == pytest.approx(1.0, rel=1e-5)


def test_period_has_inputs_of_every_user_and_pin_as_of_its_start(
    small_repo: SmallRepo, period: RetrievalPeriod
) -> None:
    assert len(period.users) == len(period.user_ids)
    assert len(period.pins) == len(period.pin_ids)
    moved = small_repo.reader.examples("user", period.user_ids, small_repo.spec.window.until)
    assert (moved.inputs["user_dense"] != period.users.inputs["user_dense"]).any()


def test_examples_of_an_unknown_entity_are_missing_everywhere(small_repo: SmallRepo) -> None:
    unknown = small_repo.reader.examples("user", np.array([987654]), small_repo.spec.window.test_from)
    dense = unknown.inputs["user_dense"]
    half = dense.shape[1] // 2
    assert (dense[:, :half] == 0.0).all()
    assert (dense[:, half:] == 1.0).all()
    assert (unknown.inputs["user_vector_0"] == 0.0).all()


def test_period_without_impressions_has_nobody(small_repo: SmallRepo) -> None:
    until = small_repo.spec.window.until
    nobody = small_repo.reader.period(until, until + timedelta(days=1), (1,))
    assert (len(nobody.user_ids), len(nobody.users), nobody.relevant, nobody.seen) == (0, 0, [], [])
    assert len(nobody.pins) == 30


def test_pins_carry_the_bucket_that_sequences_hash_them_to(small_repo: SmallRepo, period: RetrievalPeriod) -> None:
    buckets = next(item.buckets for item in small_repo.data.user.ids if item.length)
    assert period.pins.inputs[PIN_BUCKET].tolist() == hash_ids(period.pin_ids, buckets).tolist()
    assert PIN_BUCKET not in period.users.inputs


def test_pins_have_no_bucket_where_users_have_no_sequences(small_repo: SmallRepo, period: RetrievalPeriod) -> None:
    without = replace(small_repo.data.user, ids=())
    assert with_pin_bucket(period.users, period.user_ids, without) is period.users


def test_at_most_keeps_evenly_spaced_users_with_all_that_is_theirs(period: RetrievalPeriod) -> None:
    few = period.at_most(10)
    step = -(-len(period.user_ids) // 10)
    assert 1 < len(few.user_ids) <= 10
    assert few.user_ids.tolist() == period.user_ids[::step].tolist()
    assert few.users.inputs["user_dense"].tolist() == period.users.inputs["user_dense"][::step].tolist()
    assert [each.tolist() for each in few.relevant] == [each.tolist() for each in period.relevant[::step]]
    assert len(few.seen) == len(few.user_ids)
    assert period.at_most(len(period.user_ids)) is period
