"""Gates: each figure worked by hand, and which broken days the default bounds catch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.upstream.spaces import dots, frame, jittered, mapped, rotation
from trainers.upstream import gate_recipes
from trainers.upstream.alignment import align
from trainers.upstream.frame import Frame
from trainers.upstream.gates import BOUNDS, Failure, GateFailedError, GateRecipe, Probes, check, failures, gate_figures
from trainers.upstream.neighbours import neighbour_overlap, probe_figures
from trainers.upstream.population import Population

Keys = np.ndarray


def points(users: list[list[float]], pins: list[list[float]]) -> Frame:
    """A frame of given vectors, keys from 0."""
    return {
        entity: (np.arange(len(rows)), np.array(rows, np.float32)) for entity, rows in (("user", users), ("pin", pins))
    }


@cache
def days() -> tuple[Frame, Frame, Probes]:
    """Yesterday, today and the pairs that engaged: a user's with one of the twenty Pins that it is nearest to."""
    yesterday = frame(num_users=1500, num_pins=400)
    unit = {
        entity: (keys, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        for entity, (keys, vectors) in jittered(yesterday, 0.02).items()
    }
    best = np.argsort(-dots(yesterday), axis=1)[np.arange(1500), np.arange(1500) % 20]
    return yesterday, unit, Probes(yesterday["user"][0], yesterday["pin"][0][best])


def judged(today: Frame, recipe: GateRecipe | None = None) -> set[str]:
    """Names of the figures that fail on a day."""
    yesterday, whole, probes = days()
    figures = gate_figures(
        today,
        yesterday,
        active={entity: keys for entity, (keys, _) in whole.items()},
        probes=probes,
        reference=yesterday,
    )
    return {failure.figure for failure in failures(figures, recipe or gate_recipes.default())}


def every(day: Frame, change: Callable[[Keys, np.ndarray], tuple[Keys, np.ndarray]]) -> Frame:
    """The frame with users and Pins changed alike."""
    return {entity: change(keys, vectors) for entity, (keys, vectors) in day.items()}


def shuffled(_: Frame, entity: str) -> Frame:
    today = dict(days()[1])
    keys, vectors = today[entity]
    today[entity] = (keys, vectors[np.random.default_rng(1).permutation(len(keys))])
    return today


def test_a_healthy_day_passes_every_gate() -> None:
    assert judged(days()[1]) == set()


def test_a_rotated_space_fails_and_passes_once_it_is_aligned() -> None:
    turn = rotation(8, 4)
    turned = mapped(days()[1], turn, turn)
    assert {"cosine_median_user", "cosine_median_pin", "correlation_user", "mean_shift_to_yesterday_pin"} <= judged(
        turned
    )
    assert judged(align(turned, days()[0])[0]) == set()


def test_a_collapsed_model_fails() -> None:
    one = every(days()[1], lambda keys, vectors: (keys, np.tile(vectors[:1], (len(keys), 1))))
    assert {"spread_user", "spread_pin", "probe_rank", "neighbour_overlap_at_10"} <= judged(one)


def test_half_of_the_entities_gone_fails_on_coverage_alone() -> None:
    half = every(days()[1], lambda keys, vectors: (keys[::2], vectors[::2]))
    expected = {f"{name}_{entity}" for name in ("coverage", "entities_to_yesterday") for entity in ("user", "pin")}
    assert judged(half) == expected


def test_strangers_among_the_keys_fail() -> None:
    doubled = every(days()[1], lambda keys, vectors: (np.r_[keys, keys + 100_000], np.concatenate([vectors, vectors])))
    assert {"entities_to_yesterday_user", "entities_to_yesterday_pin"} <= judged(doubled)


def test_one_vector_that_is_not_finite_fails_and_is_named_alone() -> None:
    today = dict(days()[1])
    vectors = today["pin"][1].copy()
    vectors[3, 2] = np.nan
    today["pin"] = (today["pin"][0], vectors)
    assert judged(today) == {"finite_pin"}


def test_nothing_but_nan_fails() -> None:
    assert {"finite_user", "coverage_user", "cosine_median_user"} <= judged(
        every(days()[1], lambda keys, vectors: (keys, np.full_like(vectors, np.nan)))
    )


def test_an_empty_day_fails() -> None:
    assert {"finite_user", "coverage_user", "entities_to_yesterday_pin"} <= judged(
        every(days()[1], lambda keys, vectors: (keys[:0], vectors[:0]))
    )


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "norm_p01_user"), (2.0, "norm_p99_pin")])
def test_vectors_of_another_length_fail(factor: float, expected: str) -> None:
    assert expected in judged(every(days()[1], lambda keys, vectors: (keys, np.float32(factor) * vectors)))


@pytest.mark.parametrize("entity", ["user", "pin"])
def test_vectors_under_other_keys_fail(entity: str) -> None:
    assert f"correlation_{entity}" in judged(shuffled(days()[1], entity))


def test_vectors_under_other_keys_fail_where_all_stand_close_around_their_mean() -> None:
    """Cosines of strangers are near 1 there; correlation is what tells."""
    yesterday = every(days()[0], lambda keys, vectors: (keys, close(vectors)))
    today = every(days()[1], lambda keys, vectors: (keys, np.roll(close(vectors), 1, axis=0)))
    figures = gate_figures(today, yesterday)
    assert figures["cosine_median_user"] > 0.9
    assert abs(figures["correlation_user"]) < 0.2


def close(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors near the first axis."""
    moved = vectors + np.r_[5.0, np.zeros(7)]
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def test_an_untrained_model_fails() -> None:
    strange = frame(num_users=1500, num_pins=400, seed=9)
    aligned = align(strange, days()[0])[0]
    assert {"probe_recall_to_yesterday", "correlation_user", "correlation_pin", "cosine_p05_user"} <= judged(aligned)


def test_a_first_day_is_judged_by_what_needs_no_other_day() -> None:
    figures = gate_figures(days()[1], probes=days()[2])
    assert {name.removesuffix("_user").removesuffix("_pin") for name in figures} == {
        "finite",
        "norm_p01",
        "norm_p99",
        "spread",
        "probe_recall_at_20",
        "probe_rank",
    }
    assert failures(figures, gate_recipes.default()) == ()


def test_too_few_pairs_give_no_figures_of_probes() -> None:
    yesterday, today, probes = days()
    few = Probes(probes.user_ids[:99], probes.pin_ids[:99])
    assert not [name for name in gate_figures(today, yesterday, probes=few) if name.startswith("probe")]


def test_coverage_counts_active_entities_with_a_finite_vector() -> None:
    day = points([[1.0, 0.0], [np.nan, 0.0], [0.0, 1.0]], [[1.0, 0.0]])
    figures = gate_figures(day, active={"user": np.array([0, 1, 2, 7]), "pin": np.array([0])})
    assert (figures["coverage_user"], figures["coverage_pin"]) == (0.5, 1.0)
    assert figures["finite_user"] == pytest.approx(2 / 3)


def test_population_of_two_vectors_by_hand() -> None:
    found = Population.of(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32))
    np.testing.assert_allclose(found.mean, [0.5, 0.5])
    np.testing.assert_allclose(found.covariance, [[0.25, -0.25], [-0.25, 0.25]])
    assert found.spread == pytest.approx(0.5)
    moved = Population.of(np.array([[1.0, 0.0], [1.0, 0.0]], np.float32))
    assert moved.mean_shift(found) == pytest.approx(0.5**0.5)
    assert moved.covariance_shift(found) == pytest.approx(1.0)
    assert found.covariance_shift(moved) == float("inf")


def test_correlation_and_cosine_of_two_users_by_hand() -> None:
    """Both turn by 60 degrees: the cosine is a half, and so is the correlation around the means."""
    turn = np.array([[0.5, 3**0.5 / 2], [-(3**0.5) / 2, 0.5]])
    yesterday = points([[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    figures = gate_figures(mapped(yesterday, turn, turn), yesterday)
    assert figures["cosine_median_user"] == pytest.approx(0.5)
    assert figures["cosine_p05_user"] == pytest.approx(0.5)
    assert figures["correlation_user"] == pytest.approx(0.5)


def test_neighbour_overlap_is_one_under_a_rotation_and_a_chance_among_strangers() -> None:
    day = frame(num_pins=400)
    turn = rotation(8, 2)
    assert neighbour_overlap(mapped(day, turn, turn)["pin"], day["pin"], seed=0) == 1.0
    other = neighbour_overlap(frame(num_pins=400, seed=5)["pin"], day["pin"], seed=0)
    assert other is not None
    assert other == pytest.approx(10 / 399, abs=0.02)


def test_neighbours_of_few_pins_are_not_compared() -> None:
    day = frame(num_pins=49)
    assert neighbour_overlap(day["pin"], day["pin"], seed=0) is None


def test_probe_figures_by_hand() -> None:
    """User 0 ranks 30 Pins by their key, highest first: Pin 25 stands fifth, Pin 2 stands twenty-eighth."""
    pins = np.stack([np.linspace(0.0, 1.0, 30), np.zeros(30)], axis=1).tolist()
    day = points([[1.0, 0.0]], pins)
    found = probe_figures(day, Probes(np.array([0, 0, 8]), np.array([25, 2, 3])), seed=0)
    assert found.recall == 0.5
    assert found.rank == pytest.approx((25 / 29 + 2 / 29) / 2)


def test_pins_that_tie_share_the_middle_place() -> None:
    day = points([[1.0, 0.0]], [[1.0, 0.0]] * 41)
    found = probe_figures(day, Probes(np.array([0]), np.array([7])), seed=0)
    assert (found.recall, found.rank) == (0.0, 0.5)


def test_probes_must_be_pairs() -> None:
    with pytest.raises(ValueError, match=r"a Pin for each user \(got 2 users, 1 Pins\)"):
        Probes(np.array([1, 2]), np.array([1]))


def test_a_failed_gate_names_figure_value_bound_and_the_way_out() -> None:
    figures = {"coverage_user": 0.42, "norm_p99_pin": 1.2, "finite_pin": 1.0}
    with pytest.raises(GateFailedError) as caught:
        check("ctr_v1 of 2024-03-01", figures)
    text = str(caught.value)
    assert text.startswith("ctr_v1 of 2024-03-01 stays invisible, the day before stays live: ")
    assert "coverage_user must be at least 0.98 (got 0.42)" in text
    assert "norm_p99_pin must be at most 1.01 (got 1.2)" in text
    assert "--as-new-version" in text
    assert caught.value.failed == (
        Failure(figure="coverage_user", value=0.42, bound=0.98, direction="at least"),
        Failure(figure="norm_p99_pin", value=1.2, bound=1.01, direction="at most"),
    )


def test_check_is_silent_where_all_is_well_and_nan_is_not() -> None:
    check("ctr_v1", {"coverage_user": 0.98, "rank": 64.0})
    with pytest.raises(GateFailedError, match=r"coverage_user must be at least 0.98 \(got nan\)"):
        check("ctr_v1", {"coverage_user": float("nan")})


def test_every_field_of_the_recipe_bounds_a_figure() -> None:
    assert [bound.field for bound in BOUNDS] == [field.name for field in fields(GateRecipe)]


def test_every_figure_but_one_is_bounded() -> None:
    """The plain recall depends on the number of Pins: it is shown, and judged against the day before."""
    yesterday, today, probes = days()
    active = {entity: keys for entity, (keys, _) in today.items()}
    figures = gate_figures(today, yesterday, active=active, probes=probes, reference=yesterday)
    bounded = {name for bound in BOUNDS for name in bound.figures(figures)}
    assert set(figures) - bounded == {"probe_recall_at_20"}


def test_page_shows_the_default_bounds_in_their_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "upgrades.md").read_text()
    shown = re.findall(r"^\| `((?:min|max)_\w+)` \| ([\d.]+) \|", page, flags=re.MULTILINE)
    assert shown == [(bound.field, f"{getattr(GateRecipe(), bound.field):g}") for bound in BOUNDS]
