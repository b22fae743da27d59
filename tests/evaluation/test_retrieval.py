"""Full ranking of the corpus: the prior comes from validation, and small data has an answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import retrieval_job
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.evaluation import retrieval
from trainers.evaluation.retrieval import (
    Prior,
    RetrievalJob,
    popularity_row,
    two_tower,
    upstream_row,
)


@pytest.fixture(scope="module")
def job(small_repo: SmallRepo) -> RetrievalJob:
    """Retrieval on the last day."""
    return retrieval_job(small_repo)


def handmade(job: RetrievalJob, relevant: list[int], popularity: dict[int, list[float]]) -> RetrievalPeriod:
    """A period of one user over three Pins."""
    one, three = job.test.users.take(np.array([0])), job.test.pins.take(np.array([0, 1, 2]))
    return RetrievalPeriod(
        user_ids=np.array([1]),
        users=one,
        pin_ids=np.array([10, 11, 12]),
        pins=three,
        relevant=[np.array(relevant)],
        seen=[np.empty(0, np.int64)],
        log_popularity={days: np.array(values, np.float32) for days, values in popularity.items()},
    )


def test_prior_is_chosen_on_validation_days_alone(job: RetrievalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "K", 1)
    weekly, daily = [0.0, -1.0, -2.0], [-2.0, -1.0, 0.0]
    validation = handmade(job, [0], {7: weekly, 1: daily})
    test = handmade(job, [2], {7: weekly, 1: daily})
    row = popularity_row(replace(job, validation=validation, test=test))
    # The week's favourite is right in validation, so it is what the test gets, where the day's would be right.
    assert (row.recall_at_20, row.n_users) == (0.0, 1)
    assert popularity_row(replace(job, validation=test, test=test)).recall_at_20 == 1.0


def test_prior_weight_is_chosen_by_validation_recall(job: RetrievalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "K", 1)
    popularity = {7: [0.0, -1.0, -9.0], 1: [0.0, -1.0, -9.0]}
    scores = np.array([[0.0], [1.1], [0.0]], np.float32)

    def represent(period: RetrievalPeriod) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(period.user_ids), 1), np.float32), scores

    def best(relevant: list[int]) -> Prior:
        small = replace(job, validation=handmade(job, relevant, popularity))
        return retrieval._best_prior(small, represent, (0.0, 1.0, 2.0))[0]

    assert best([1]) == Prior(days=1, weight=0.0)
    assert best([0]) == Prior(days=1, weight=2.0)


def test_prior_without_a_user_in_validation_is_the_first(
    small_repo: SmallRepo, job: RetrievalJob, caplog: pytest.LogCaptureFixture
) -> None:
    until = small_repo.spec.window.until
    nobody = small_repo.reader.period(until, until + (until - small_repo.spec.window.test_from), (1, 7))
    small = replace(job, validation=nobody)
    arm = two_tower(small, "two-tower", ())
    assert arm.prior == Prior(days=1, weight=small.recipe.prior_weights[0])
    assert "no_engaged_user_in_validation" in caplog.text


def test_retrieval_needs_an_engaged_user_in_the_test_days(small_repo: SmallRepo, job: RetrievalJob) -> None:
    until = small_repo.spec.window.until
    nobody = small_repo.reader.period(until, until + (until - small_repo.spec.window.test_from), (1, 7))
    with pytest.raises(ValueError, match=r"new engagement in the test days \(got none\); move the dataset's window"):
        replace(job, test=nobody)


def test_popularity_recall_is_that_of_the_most_engaged_unseen_pins(job: RetrievalJob) -> None:
    row = popularity_row(job)
    by_days = []
    for days in (1, 7):
        hits = []
        for relevant, seen in zip(job.test.relevant, job.test.seen, strict=True):
            scores = [(-score, pin) for pin, score in enumerate(job.test.log_popularity[days]) if pin not in set(seen)]
            top = {pin for _, pin in sorted(scores)[:20]}
            hits.append(len(top & set(relevant.tolist())) / len(relevant))
        by_days.append(np.mean(hits))
    assert any(row.recall_at_20 == pytest.approx(value) for value in by_days)
    assert row.ci95 is not None
    assert row.ci95[0] <= row.recall_at_20 <= row.ci95[1]


def test_upstream_row_ranks_by_the_embeddings_inner_product(job: RetrievalJob) -> None:
    job = replace(job, recipe=replace(job.recipe, prior_weights=(0.0,)))
    version = job.manifest.embeddings[0]
    row = upstream_row(job, version)
    queries, candidates = job.test.users.inputs["user_vector_0"], job.test.pins.inputs["pin_vector_1"]
    recalls = []
    for query, relevant, seen in zip(queries, job.test.relevant, job.test.seen, strict=True):
        scores = candidates[:, :-1] @ query[:-1]
        scores[seen] = -np.inf
        top = set(np.argsort(-scores, kind="stable")[:20].tolist()) - set(seen.tolist())
        recalls.append(len(top & set(relevant.tolist())) / len(relevant))
    assert row.recall_at_20 == pytest.approx(np.mean(recalls))
    assert row.model == "upstream ctr_v1 inner product"


def test_two_tower_trains_on_training_positives_with_the_named_vectors(job: RetrievalJob) -> None:
    arm = two_tower(job, "two-tower, both domains", job.manifest.embeddings)
    assert [item.column.split("__")[0] for item in arm.user.vectors] == [
        "user_embedding_ctr_v1",
        "user_embedding_cvr_v1",
    ]
    assert 0.0 <= arm.row.recall_at_20 <= 1.0
    assert arm.row.n_users == len(job.test.user_ids)
    plain = two_tower(job, "two-tower, no embeddings", ())
    assert [item.column for item in plain.user.vectors] == []
