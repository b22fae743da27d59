"""Alignment: what a map undoes, what it keeps, and what it refuses."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.upstream.spaces import dots, frame, jittered, mapped, rotation
from trainers.upstream.aggregate import Vectors
from trainers.upstream.alignment import AlignmentError, Kind, align, frame_sums, nearest_rotation, procrustes, solve
from trainers.upstream.alignment_map import AlignmentMap
from trainers.upstream.alignment_sums import CrossSums
from trainers.upstream.frame import Frame

KINDS: tuple[Kind, ...] = ("procrustes", "svd_procrustes")


def points(users: list[list[float]], pins: list[list[float]]) -> Frame:
    """A frame of given vectors, keys from 0."""
    return {
        entity: (np.arange(len(rows)), np.array(rows, np.float32)) for entity, rows in (("user", users), ("pin", pins))
    }


def distance(day: Frame, other: Frame) -> float:
    """Mean squared distance, users and Pins weighing the same."""
    return float(np.mean([((day[e][1] - other[e][1]) ** 2).sum(axis=1).mean() for e in ("user", "pin")]))


def test_procrustes_undoes_a_quarter_turn() -> None:
    reference = points([[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8]])
    day = points([[0.0, 1.0], [-1.0, 0.0]], [[-0.8, 0.6]])
    aligned, found, figures = align(day, reference, "procrustes")
    np.testing.assert_allclose(found.user, [[0.0, -1.0], [1.0, 0.0]], atol=1e-7)
    for entity in ("user", "pin"):
        np.testing.assert_allclose(aligned[entity][1], reference[entity][1], atol=1e-6)
    assert figures.entities["user"].cosine_before == pytest.approx(0.0, abs=1e-6)
    assert figures.entities["user"].cosine_after == pytest.approx(1.0)


def test_procrustes_undoes_a_reflection() -> None:
    reference = points([[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8]])
    day = points([[1.0, 0.0], [0.0, -1.0]], [[0.6, -0.8]])
    _, found, _ = align(day, reference, "procrustes")
    np.testing.assert_allclose(found.pin, [[1.0, 0.0], [0.0, -1.0]], atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 16))
def test_alignment_recovers_a_random_rotation(kind: Kind, seed: int, dim: int) -> None:
    reference = frame(dim=dim, seed=seed)
    aligned, found, figures = align(mapped(reference, rotation(dim, seed)), reference, kind)
    for entity in ("user", "pin"):
        np.testing.assert_allclose(aligned[entity][1], reference[entity][1], atol=1e-4)
    assert found.residual == pytest.approx(1.0, abs=1e-6)
    assert figures.rank == dim


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 16))
def test_alignment_keeps_every_dot_product_of_unrelated_spaces(kind: Kind, seed: int, dim: int) -> None:
    day, reference = frame(dim=dim, seed=seed), frame(dim=dim, seed=seed + 1)
    aligned, found, _ = align(day, reference, kind)
    # float32 vectors: products of lengths that a general change of basis may stretch.
    stretch = np.abs(found.user).max() * np.abs(found.pin).max() * dim
    np.testing.assert_allclose(dots(aligned), dots(day), atol=1e-6 * max(1.0, stretch))
    assert found.dot_error < 1e-9


def test_procrustes_is_one_orthogonal_matrix_for_users_and_pins() -> None:
    found = solve(frame_sums(frame(seed=1), frame(seed=2)), "procrustes")
    assert found.user is found.pin
    np.testing.assert_allclose(found.user @ found.user.T, np.eye(8), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_procrustes_is_nearer_than_any_other_rotation(seed: int) -> None:
    day, reference = frame(seed=1), frame(seed=2)
    aligned, _, _ = align(day, reference, "procrustes")
    other = rotation(8, seed)
    assert distance(aligned, reference) <= distance(mapped(day, other, other), reference) + 1e-6


def test_svd_procrustes_undoes_a_general_change_of_basis_and_procrustes_alone_does_not() -> None:
    reference = frame(num_users=2000, num_pins=800, dim=16)
    stretch = np.diag(np.geomspace(1.0, 10.0, 16)) / np.sqrt(10.0)
    day = mapped(jittered(reference, 0.01), rotation(16, 1) @ stretch @ rotation(16, 2))
    alone, both = (align(day, reference, kind)[1].residual for kind in KINDS)
    assert alone < 0.9
    assert both > 0.995


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 12))
def test_svd_procrustes_is_never_farther_than_procrustes(seed: int, dim: int) -> None:
    day, reference = frame(dim=dim, seed=seed), frame(dim=dim, seed=seed + 1)
    alone, both = (align(day, reference, kind)[0] for kind in KINDS)
    assert distance(both, reference) <= distance(alone, reference) + 1e-5


def test_svd_procrustes_takes_all_of_a_stretch_and_none_of_a_turn() -> None:
    reference = frame(num_users=2000, num_pins=800, dim=6)
    stretched = mapped(reference, rotation(6, 1) @ np.diag([3.0, 2.0, 1.0, 1.0, 0.5, 0.5]))
    assert align(stretched, reference, "svd_procrustes")[1].stretch == 1.0
    turn = rotation(6, 1)
    assert align(mapped(reference, turn, turn), reference, "svd_procrustes")[1].stretch == 0.0


def test_svd_procrustes_reports_the_norms_that_it_changed() -> None:
    reference = frame(dim=4)
    day = mapped(reference, np.diag([2.0, 1.0, 1.0, 0.5]))
    _, _, figures = align(day, reference, "svd_procrustes")
    assert figures.entities["user"].norm_p01 == pytest.approx(1.0, abs=1e-4)
    _, _, kept = align(day, reference, "procrustes")
    assert kept.entities["user"].norm_p99 > 1.5


def test_users_and_pins_weigh_the_same_however_many_there_are() -> None:
    """Users stay, Pins turn by 2φ: half of the way is best for both, also with a hundred times as many users."""
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reference = frame(num_users=4000, num_pins=40, dim=2)
    unit = {"user": np.eye(2), "pin": np.eye(2)}
    sums = {entity: CrossSums(unit[entity], unit[entity], unit[entity], 1) for entity in ("user", "pin")}
    sums["pin"].cross = (turn @ turn).T
    for entity, count in (("user", len(reference["user"][0])), ("pin", len(reference["pin"][0]))):
        each = sums[entity]
        sums[entity] = CrossSums(each.cross * count, each.day * count, each.reference * count, count)
    np.testing.assert_allclose(procrustes(sums).user, turn.T, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_directions_that_carry_nothing_are_turned_and_not_blown_up(kind: Kind) -> None:
    """A model that fills two of six dimensions: the others must neither fail nor become noise."""
    narrow = frame(dim=2)
    wide = {entity: (keys, np.pad(vectors, ((0, 0), (0, 4)))) for entity, (keys, vectors) in narrow.items()}
    turn = rotation(6, 3)
    aligned, found, figures = align(mapped(wide, turn, turn), wide, kind)
    assert figures.rank == 2
    assert found.residual == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(found.user, 2) < 1.5
    np.testing.assert_allclose(dots(aligned), dots(wide), atol=1e-5)


def test_nearest_rotation_turns_free_directions_as_little_as_can_be() -> None:
    cross = np.zeros((4, 4))
    cross[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    found, rank = nearest_rotation(cross)
    assert rank == 2
    np.testing.assert_allclose(found[2:, 2:], np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found[:2, :2], cross[:2, :2], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_looks_at_entities_of_both_frames_alone(kind: Kind) -> None:
    reference = frame(dim=4)
    turn = rotation(4, 5)
    day = dict(mapped(reference, turn, turn))
    keys, vectors = day["user"]
    strangers = np.full((50, 4), 0.5, np.float32)
    shuffled = np.random.default_rng(0).permutation(len(keys) + 50)
    day["user"] = (
        np.concatenate([keys, keys[-1] + 1 + np.arange(50)])[shuffled],
        np.concatenate([vectors, strangers])[shuffled],
    )
    aligned, found, figures = align(day, reference, kind)
    assert figures.entities["user"].common == len(keys)
    assert found.residual == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(aligned["user"][0], np.arange(len(keys) + 50))
    np.testing.assert_allclose(aligned["user"][1][len(keys) :], strangers @ turn.T, atol=1e-4)


def test_sums_in_blocks_and_merged_equal_sums_at_once() -> None:
    day, reference = frame(seed=1), frame(seed=2)
    at_once, in_blocks = frame_sums(day, reference), frame_sums(day, reference, block_rows=7)
    merged = CrossSums.zeros(8)
    for part in (slice(0, 100), slice(100, None)):
        half = CrossSums.zeros(8)
        half.update(day["user"][1][part], reference["user"][1][part])
        merged.merge(half)
    for other in (in_blocks["user"], merged):
        assert other.count == 300
        for name in ("cross", "day", "reference"):
            np.testing.assert_allclose(getattr(other, name), getattr(at_once["user"], name), rtol=1e-12)


def test_sums_need_no_more_memory_for_more_entities() -> None:
    def peak(count: int) -> int:
        keys = np.arange(count)
        vectors = np.ones((count, 32), np.float32)
        day = {"user": (keys, vectors), "pin": (keys, vectors)}
        tracemalloc.start()
        frame_sums(day, day, block_rows=1000)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    small, large = peak(2_000), peak(200_000)
    assert large < 1.2 * small


@pytest.mark.parametrize("kind", KINDS)
def test_map_keeps_what_it_is_in_a_file(kind: Kind, tmp_path: Path) -> None:
    _, found, _ = align(frame(seed=1), frame(seed=2), kind)
    found.save(tmp_path / "maps" / "map.safetensors", {"cutoff": "2024-01-02"})
    again = AlignmentMap.load(tmp_path / "maps" / "map.safetensors")
    for name in ("kind", "rank", "stretch", "residual"):
        assert getattr(again, name) == getattr(found, name)
    vectors: Vectors = frame(seed=3)["pin"][1]
    np.testing.assert_array_equal(again.apply("pin", vectors), found.apply("pin", vectors))
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["map.safetensors"]


def test_identity_changes_nothing(tmp_path: Path) -> None:
    same = AlignmentMap.identity(8)
    vectors = frame()["user"][1]
    np.testing.assert_array_equal(same.apply("user", vectors), vectors)
    same.save(tmp_path / "map")
    assert AlignmentMap.load(tmp_path / "map").residual == 1.0


def test_map_refuses_vectors_of_another_width() -> None:
    with pytest.raises(ValueError, match=r"must be \[N, 4\] for this map \(got shape \(300, 8\)\)"):
        AlignmentMap.identity(4).apply("user", frame()["user"][1])


def test_alignment_refuses_frames_of_different_widths() -> None:
    with pytest.raises(AlignmentError, match=r"one width \(got 8 and 4 for user\); publish a new embedding version"):
        align(frame(dim=8), frame(dim=4))


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_refuses_frames_without_common_pins(kind: Kind) -> None:
    day, reference = dict(frame()), frame()
    day["pin"] = (day["pin"][0] + 1, day["pin"][1])
    with pytest.raises(AlignmentError, match=r"\(got 300 users, 0 pins in common\); take a nearer reference"):
        align(day, reference, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_refuses_fewer_common_entities_than_a_vector_is_wide(kind: Kind) -> None:
    with pytest.raises(AlignmentError, match=r"at least 8 of them, as many as .*\(got 4 users, 3 pins in common\)"):
        align(frame(num_users=4, num_pins=3), frame(), kind)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_alignment_refuses_vectors_without_content(value: float) -> None:
    day = dict(frame())
    day["pin"] = (day["pin"][0], np.full_like(day["pin"][1], value))
    with pytest.raises(AlignmentError, match="pin vectors must be finite and not all zero"):
        align(day, frame())
