"""Full ranking of the corpus: the prior comes from validation, and small data has an answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import retrieval_job
from trainers.data.dataset import Window
from trainers.data.retrieval_data import RetrievalPeriod
from trainers.evaluation import retrieval, retrieval_baselines, retrieval_figures
from trainers.evaluation.retrieval import RetrievalJob, compare, popularity, two_tower, upstream, validation_start
from trainers.evaluation.retrieval_baselines import Baseline, Setting, baselines, judge_baseline
from trainers.evaluation.retrieval_figures import Figures, Prior, best_prior, by_inner_product, priors, retrieval_rows
from trainers.progress import SILENT
from trainers.retrieval.full_ranking import ScoreRows, inner_products
from trainers.retrieval.recipes import BaselineRecipe


@pytest.fixture(scope="module")
def job(small_repo: SmallRepo) -> RetrievalJob:
    """Retrieval on the last day."""
    return retrieval_job(small_repo)


def handmade(job: RetrievalJob, relevant: list[int], popularity: dict[int, list[float]]) -> RetrievalPeriod:
    """A period of one user over three Pins."""
    one, three = job.test.users.take(np.array([0])), job.test.pins.take(np.array([0, 1, 2]))
    return RetrievalPeriod(
        start=job.test.start,
        user_ids=np.array([1]),
        users=one,
        pin_ids=np.array([10, 11, 12]),
        pins=three,
        relevant=[np.array(relevant)],
        seen=[np.empty(0, np.int64)],
        log_popularity={days: np.array(values, np.float32) for days, values in popularity.items()},
    )


def test_prior_is_chosen_on_validation_days_alone(job: RetrievalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_figures, "K", 1)
    weekly, daily = [0.0, -1.0, -2.0], [-2.0, -1.0, 0.0]
    validation = handmade(job, [0], {7: weekly, 1: daily})
    test = handmade(job, [2], {7: weekly, 1: daily})
    # The week's favourite is right in validation, so it is what the test gets, where the day's would be right.
    assert popularity(replace(job, validation=validation, test=test)).recall.tolist() == [[0.0]]
    assert popularity(replace(job, validation=test, test=test)).recall.tolist() == [[1.0]]


def test_prior_weight_is_chosen_by_validation_recall(job: RetrievalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_figures, "K", 1)
    popular = {7: [0.0, -1.0, -9.0], 1: [0.0, -1.0, -9.0]}
    scores = np.array([[0.0], [1.1], [0.0]], np.float32)

    def represent(period: RetrievalPeriod) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(period.user_ids), 1), np.float32), scores

    def best(relevant: list[int]) -> Prior:
        return best_prior(handmade(job, relevant, popular), by_inner_product(represent), (0.0, 1.0, 2.0))[0]

    assert best([1]) == Prior(days=1, weight=0.0)
    assert best([0]) == Prior(days=1, weight=2.0)


def test_priors_without_weight_are_tried_once() -> None:
    tried = [(prior.days, prior.weight) for prior in priors((0.0, 0.5))]
    assert tried == [(1, 0.0), (1, 0.5), (7, 0.5)]


@pytest.mark.parametrize(
    ("train_days", "test_days", "days"), [(9, 3, 3), (42, 14, 14), (9, 7, 3), (2, 3, 1), (20, 1, 1)]
)
def test_validation_is_as_long_as_the_test_up_to_a_third_of_training(
    train_days: int, test_days: int, days: int
) -> None:
    test_from = datetime(2024, 3, 1, tzinfo=UTC)
    window = Window(
        features_from=test_from - timedelta(days=train_days + 1),
        train_from=test_from - timedelta(days=train_days),
        test_from=test_from,
        until=test_from + timedelta(days=test_days),
    )
    assert validation_start(window) == test_from - timedelta(days=days)


def test_choice_without_a_user_in_validation_is_the_first(
    small_repo: SmallRepo, job: RetrievalJob, caplog: pytest.LogCaptureFixture
) -> None:
    until = small_repo.spec.window.until
    nobody = small_repo.reader.period(until, until + (until - small_repo.spec.window.test_from), (1, 7))
    small = replace(job, validation=nobody)
    arm = two_tower(small, "two-tower", ())
    assert (arm.epochs, arm.prior) == (small.recipe.epochs, Prior(days=1, weight=small.recipe.prior_weights[0]))
    assert "too_little_validation_data users=0" in caplog.text
    popularity(small)
    assert "no_engaged_user_in_validation" in caplog.text


def test_choice_learns_from_pairs_before_validation_and_the_model_from_all(job: RetrievalJob) -> None:
    training = retrieval._Training(job, ())
    start = round(job.validation.start.timestamp() * 1_000_000)
    micros = training._pairs.event_micros
    assert len(training._pairs.before(job.validation.start).user_ids) == (micros < start).sum()
    assert 0 < (micros < start).sum() < len(micros) == len(training._pairs.user_ids)
    assert micros.max() < round(job.test.start.timestamp() * 1_000_000)


def test_choice_takes_the_best_epoch_and_the_later_of_equals(
    job: RetrievalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, recipe=replace(job.recipe, epochs=3))

    def chosen(recalls: tuple[float, ...]) -> tuple[int, Prior]:
        found = iter([(Prior(days=1, weight=float(i)), recall) for i, recall in enumerate(recalls)])
        monkeypatch.setattr(retrieval, "best_prior", lambda *_: next(found))
        return retrieval._Training(job, ()).chosen()

    assert chosen((0.1, 0.3, 0.2)) == (2, Prior(days=1, weight=1.0))
    assert chosen((0.2, 0.2, 0.2)) == (3, Prior(days=1, weight=2.0))


def test_retrieval_needs_an_engaged_user_in_the_test_days(small_repo: SmallRepo, job: RetrievalJob) -> None:
    until = small_repo.spec.window.until
    nobody = small_repo.reader.period(until, until + (until - small_repo.spec.window.test_from), (1, 7))
    with pytest.raises(ValueError, match=r"new engagement in the test days \(got none\); move the dataset's window"):
        replace(job, test=nobody)


def test_popularity_recall_is_that_of_the_most_engaged_unseen_pins(job: RetrievalJob) -> None:
    found = popularity(job).recall.mean()
    by_days = []
    for days in (1, 7):
        hits = []
        for relevant, seen in zip(job.test.relevant, job.test.seen, strict=True):
            scores = [(-score, pin) for pin, score in enumerate(job.test.log_popularity[days]) if pin not in set(seen)]
            top = {pin for _, pin in sorted(scores)[:20]}
            hits.append(len(top & set(relevant.tolist())) / len(relevant))
        by_days.append(np.mean(hits))
    assert any(found == pytest.approx(value) for value in by_days)


def test_upstream_ranks_by_the_embeddings_inner_product(job: RetrievalJob) -> None:
    job = replace(job, recipe=replace(job.recipe, prior_weights=(0.0,)))
    figures = upstream(job, job.manifest.embeddings[0])
    queries, candidates = job.test.users.inputs["user_vector_0"], job.test.pins.inputs["pin_vector_1"]
    recalls = []
    for query, relevant, seen in zip(queries, job.test.relevant, job.test.seen, strict=True):
        scores = candidates[:, :-1] @ query[:-1]
        scores[seen] = -np.inf
        top = set(np.argsort(-scores, kind="stable")[:20].tolist()) - set(seen.tolist())
        recalls.append(len(top & set(relevant.tolist())) / len(relevant))
    np.testing.assert_allclose(figures.recall, [recalls])
    assert figures.model == "upstream ctr_v1 inner product"


def test_two_tower_trains_every_seed_with_the_named_vectors(job: RetrievalJob) -> None:
    arm = two_tower(job, "two-tower, both domains", job.manifest.embeddings)
    names = ["user_embedding_ctr_v1", "user_embedding_cvr_v1"]
    assert [item.column.split("__")[0] for item in arm.user.vectors] == names
    assert [each.weight for each in arm.model.config.shared] == [1.0, job.recipe.tower_weight]
    assert arm.figures.recall.shape == arm.figures.ndcg.shape == (len(job.seeds), len(job.test.user_ids))
    assert (arm.figures.ndcg[0] != arm.figures.ndcg[1]).any()
    plain = two_tower(replace(job, seeds=(1,)), "two-tower, no embeddings", ())
    assert ([item.column for item in plain.user.vectors], plain.model.config.shared) == ([], ())


def test_compare_gives_every_model_a_gain_but_the_base(job: RetrievalJob) -> None:
    small = replace(job, seeds=(1,))
    rows, released = compare(small, job.manifest.embeddings, workers=1, progress=SILENT)
    assert [row.model.partition(" (")[0] for row in rows] == [
        "popularity",
        "item-kNN",
        "ALS",
        "EASE",
        "upstream ctr_v1 inner product",
        "two-tower, no embeddings",
        "two-tower, both domains",
    ]
    assert [row.recall_gain is None for row in rows] == [False] * 5 + [True, False]
    assert [row.released_lead is None for row in rows] == [False] * 6 + [True]
    assert rows[-1].recall_gain == rows[-2].released_lead
    assert len(released.model.config.shared) == 2


def test_compare_leaves_baselines_out_without_a_recipe_for_them(job: RetrievalJob) -> None:
    bare = replace(job, seeds=(1,), recipe=replace(job.recipe, baselines=None))
    rows, _ = compare(bare, job.manifest.embeddings, workers=1, progress=SILENT)
    assert len(rows) == 4


def test_compare_has_the_unified_model_in_the_place_of_the_released_vectors(job: RetrievalJob) -> None:
    bare = replace(job, seeds=(1,), recipe=replace(job.recipe, baselines=None))
    ctr, stand_in = job.manifest.embeddings
    rows, released = compare(bare, (ctr,), stand_in, workers=1, progress=SILENT)
    assert [row.model for row in rows] == [
        "popularity",
        "upstream ctr_v1 inner product",
        "upstream cvr_v1 inner product",
        "two-tower, no embeddings",
        "two-tower, unified model",
        "two-tower, both domains",
    ]
    assert [item.column.split("__")[0] for item in released.user.vectors] == ["user_embedding_ctr_v1"]


def test_ease_is_left_out_where_users_and_pins_are_too_many(
    job: RetrievalJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retrieval_baselines, "EASE_LIMIT", 5)
    recipe = job.recipe.baselines
    assert recipe is not None
    *_, last = baselines(recipe)
    periods = {"validation": job.validation, "test": job.test}
    assert judge_baseline(last, recipe, job.engagements, **periods, seeds=(1,)) is None
    assert "baseline_left_out name=EASE" in caplog.text


def test_baseline_takes_what_did_best_in_validation(job: RetrievalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = BaselineRecipe(prior_weights=(0.0,))
    calls: list[str] = []

    def setting(name: str) -> Setting:
        def fit(*_: object, **more: int) -> ScoreRows:
            calls.append(f"{name}{more['seed']}")
            return inner_products(*one)

        return Setting(text=name, fit=fit)

    best = iter([0.1, 0.4, 0.3, 0.4])
    monkeypatch.setattr(retrieval_baselines, "best_prior", lambda *_: (Prior(days=1, weight=0.0), next(best)))
    one = (np.zeros((len(job.test.user_ids), 1), np.float32), np.zeros((len(job.test.pin_ids), 1), np.float32))
    model = Baseline(name="model", settings=(setting("a"), setting("b")), seeded=True)
    periods = {"validation": job.validation, "test": job.test}
    found = judge_baseline(model, recipe, job.engagements, **periods, seeds=(1, 2))
    assert found is not None
    # The first of equals: setting b on the log alone, with each seed.
    assert (found.model, calls, len(found.recall)) == ("model (b)", ["b1", "b2"], 2)


def test_rows_average_seeds_and_pair_the_gain_by_user() -> None:
    base = Figures(model="base", recall=np.array([[0.0, 0.5], [0.5, 0.5]]), ndcg=np.zeros((2, 2)))
    # 0.2 more for every user: whoever is drawn, the difference is the same.
    better = Figures(model="better", recall=base.recall + 0.2, ndcg=np.array([[0.1, 0.3]]))
    first, second = retrieval_rows([base, better], base, better, samples=50, seed=1)
    assert (first.recall_at_20, first.recall_by_seed) == (0.375, (0.25, 0.5))
    assert (first.recall_gain, first.recall_gain_ci95) == (None, None)
    assert second.recall_at_20 == pytest.approx(0.575)
    assert second.recall_gain == pytest.approx(0.2)
    assert second.recall_gain_ci95 == pytest.approx((0.2, 0.2))
    assert second.ci95 is not None
    assert second.ci95[0] < second.ci95[1]
    assert second.ndcg_gain == pytest.approx(0.2)
    assert second.ndcg_gain_ci95 == pytest.approx((0.1, 0.3))
