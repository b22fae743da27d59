"""Bringing a day's embeddings into the reference frame of their version, every dot product kept.

A retrained model is free to turn its space. What consumers of a version may see of that is nothing: a day is mapped
onto the version's reference frame by one change of basis, x -> x A for users and y -> y A^-T for Pins, under which
each user·Pin dot product stays what it was. With an orthogonal A the two are the same matrix.

Maps follow from sums of e×e matrices over the entities that both frames hold, so vectors stream through in blocks.
Source: orthogonal Procrustes (Schönemann, 1966); SVD standard form before it: Zielnicki and Hsiao, "Orthogonal Low Rank
Embedding Stabilization", arXiv:2508.07574. The treatment of directions that carry nothing is ours.
Dims: N entities, e width of a vector, k rank of the user·Pin products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.contract import ENTITIES
from trainers.upstream.aggregate import Keys, Vectors, keep_last
from trainers.upstream.alignment_map import AlignmentMap
from trainers.upstream.alignment_sums import BLOCK_ROWS, CrossSums, common_blocks
from trainers.upstream.frame import Frame

Kind = Literal["procrustes", "svd_procrustes"]
Floats = npt.NDArray[np.float64]
Sums = Mapping[str, CrossSums]

NOTHING = 1e-9
"""Singular values below this share of the largest are rounding errors of float32 vectors: squares of 3e-5 of a norm."""
STANDARD = 1e-3
"""The same for directions that enter the standard form: it divides by their roots, which must not blow up noise."""

STRETCHES = np.linspace(0.0, 1.0, 11)
"""Shares of the standard form's stretch that are tried."""
INDIFFERENT = 1e-9
"""Mean squared distances of unit vectors that differ by less are equal."""


class AlignmentError(ValueError):
    """The two frames do not determine a map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityAlignment:
    """How far one entity's vectors of the day are from those of the reference."""

    common: int
    """Entities in both frames."""
    cosine_before: float
    """Mean cosine of an entity's vector of the day to that of the reference."""
    cosine_after: float
    """The same after the map."""
    cosine_p05: float
    """Its 5 % quantile."""
    norm_p01: float
    """1 % quantile of the mapped vectors' norms; an orthogonal map keeps norms, another does not."""
    norm_p99: float
    """The 99 % quantile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentFigures:
    """What an alignment did."""

    kind: Kind
    rank: int
    """Directions that the data determined, k."""
    stretch: float
    """Share of the standard form's stretch that was taken: 0 is a turn."""
    entities: Mapping[str, EntityAlignment] = field(default_factory=dict)

    def to_dict(self) -> dict[str, float]:
        """Figures by name, such as `cosine_after_user`."""
        named = {"rank": float(self.rank), "stretch": self.stretch}
        for entity, each in self.entities.items():
            named |= {f"{name}_{entity}": float(value) for name, value in asdict(each).items()}
        return named


def align(
    day: Frame, reference: Frame, kind: Kind = "procrustes", *, block_rows: int = BLOCK_ROWS
) -> tuple[dict[str, tuple[Keys, Vectors]], AlignmentMap, AlignmentFigures]:
    """The day in the reference's frame, the map that brought it there, and how well it fits.

    Vectors are as long after the map as it makes them: with `svd_procrustes` that differs from before, so bring them
    back to unit length where that is asked for.

    Args:
        day: Vectors of the day; of a key that occurs twice the last one counts.
        reference: The frame to come to; the same holds.
        block_rows: Entities looked at at once.

    Raises:
        AlignmentError: The frames share too few entities, their widths differ, or vectors are not finite.
    """
    ordered = {entity: keep_last(*day[entity]) for entity in ENTITIES}
    onto = {entity: keep_last(*reference[entity]) for entity in ENTITIES}
    sums = frame_sums(ordered, onto, block_rows=block_rows)
    found = solve(sums, kind)
    aligned = {entity: (keys, found.apply(entity, vectors)) for entity, (keys, vectors) in ordered.items()}
    before = {entity: _cosines(ordered[entity], onto[entity], block_rows) for entity in ENTITIES}
    after = {entity: _cosines(aligned[entity], onto[entity], block_rows) for entity in ENTITIES}
    figures = AlignmentFigures(
        kind=kind,
        rank=found.rank,
        stretch=found.stretch,
        entities={
            entity: EntityAlignment(
                common=sums[entity].count,
                cosine_before=_mean(before[entity]),
                cosine_after=_mean(after[entity]),
                cosine_p05=_quantile(after[entity], 0.05),
                norm_p01=_quantile(np.linalg.norm(aligned[entity][1], axis=1), 0.01),
                norm_p99=_quantile(np.linalg.norm(aligned[entity][1], axis=1), 0.99),
            )
            for entity in ENTITIES
        },
    )
    return aligned, found.with_residual(_mean(np.concatenate(list(after.values())))), figures


def frame_sums(day: Frame, reference: Frame, *, block_rows: int = BLOCK_ROWS) -> dict[str, CrossSums]:
    """Sums over the entities that both frames hold; keys must increase strictly, as the walk writes them.

    Raises:
        AlignmentError: Widths differ.
    """
    found = {}
    for entity in ENTITIES:
        width, other = day[entity][1].shape[1], reference[entity][1].shape[1]
        if width != other:
            raise AlignmentError(
                f"a day and its reference must be of one width (got {width} and {other} for {entity}); "
                "publish a new embedding version instead"
            )
        found[entity] = CrossSums.zeros(width)
        for block, onto in common_blocks(day[entity], reference[entity], block_rows):
            found[entity].update(block, onto)
    return found


def solve(sums: Sums, kind: Kind) -> AlignmentMap:
    """The map of that kind; see `procrustes` and `svd_procrustes`."""
    return procrustes(sums) if kind == "procrustes" else svd_procrustes(sums)


def procrustes(sums: Sums) -> AlignmentMap:
    """The orthogonal map, reflections allowed, that brings the day nearest to the reference in mean squared distance.

    Users and Pins weigh the same, however many there are of each. Directions in which the frames have nothing in common
    but rounding errors turn as little as can be.
    """
    _check_common(sums)
    cross = _mean_over_entities({entity: each.cross for entity, each in sums.items()}, sums)
    rotation, rank = nearest_rotation(cross)
    return AlignmentMap(kind="procrustes", user=rotation, pin=rotation, rank=rank)


def svd_procrustes(sums: Sums) -> AlignmentMap:
    """The change of basis by the standard form of both frames' products, as much of its stretch as brings them nearer.

    The whole of it undoes any change of basis. But vectors of unit length are only free to turn: there the stretch
    between two trainings is mostly what they learned differently, and none of it is best. With A = W S Zᵀ all
    W Sᵗ Zᵀ keep the products, t from 0 to 1; the one nearest to the reference is taken, after a last rotation. So this
    is never farther from the reference than `procrustes`.
    """
    _check_common(sums)
    whole, rank = _standard_form_map(sums)
    left, values, right = np.linalg.svd(whole)
    tried = [_stretched(sums, left, values**stretch, right) for stretch in STRETCHES]
    distances = np.array([distance for _, _, distance in tried])
    # The least stretch of equals: among distances that differ by rounding alone, a turn.
    best = int(np.argmax(distances <= distances.min() + INDIFFERENT))
    user, pin, _ = tried[best]
    return AlignmentMap(kind="svd_procrustes", user=user, pin=pin, rank=rank, stretch=float(STRETCHES[best]))


def _stretched(sums: Sums, left: Floats, values: Floats, right: Floats) -> tuple[Floats, Floats, float]:
    """Both matrices of a change of basis with a last rotation, and the mean squared distance that it leaves."""
    maps = {"user": left * values @ right, "pin": left / values @ right}
    cross = _mean_over_entities({entity: maps[entity].T @ sums[entity].cross for entity in ENTITIES}, sums)
    rotation, _ = nearest_rotation(cross)
    lengths = _mean_over_entities({e: maps[e].T @ sums[e].day @ maps[e] + sums[e].reference for e in ENTITIES}, sums)
    distance = float(np.trace(lengths) - 2.0 * np.trace(rotation.T @ cross))
    return maps["user"] @ rotation, maps["pin"] @ rotation, distance


def _standard_form_map(sums: Sums) -> tuple[Floats, int]:
    """A that brings the day's standard form onto the reference's, and the rank of the products.

    U Vᵀ = P S Qᵀ gives the standard form U' = P √S, V' = Q √S, which no change of basis alters but by signs, or by
    turns among equal singular values; a rotation, one for both, takes those out. Then the reference's own standard form
    is undone. Directions without a part in the products are turned separately: the whole is invertible and exact.
    """
    grams = {entity: (each.day / each.count, each.reference / each.count) for entity, each in sums.items()}
    day, reference = (_product_svd(grams["user"][i], grams["pin"][i]) for i in (0, 1))
    rank = min(day.rank, reference.rank)
    ours, theirs = day.basis(rank), reference.basis(rank)
    cross = _mean_over_entities(
        {
            "user": ours.user.T @ sums["user"].cross @ theirs.user,
            "pin": ours.pin.T @ sums["pin"].cross @ theirs.pin,
        },
        sums,
    )
    turn = np.zeros_like(cross)
    turn[:rank, :rank], _ = nearest_rotation(cross[:rank, :rank])
    turn[rank:, rank:], _ = nearest_rotation(cross[rank:, rank:], ours.user[:, rank:].T @ theirs.user[:, rank:])
    # The dual of a basis is its inverse transposed: nothing is inverted here.
    return ours.user @ turn @ theirs.pin.T, rank


def nearest_rotation(cross: Floats, otherwise: Floats | None = None) -> tuple[Floats, int]:
    """Orthogonal R with the largest trace of RᵀM, and the rank of M.

    Args:
        cross: M [n, n].
        otherwise: What R should be near to where M is 0; the identity when not given.
    """
    if cross.size == 0:
        return cross.copy(), 0
    left, values, right = np.linalg.svd(cross)
    rank = int((values > NOTHING * values[0]).sum()) if values[0] > 0.0 else 0
    wanted = np.eye(len(cross)) if otherwise is None else otherwise
    free_left, _, free_right = np.linalg.svd(left[:, rank:].T @ wanted @ right[rank:].T)
    rotation: Floats = left[:, :rank] @ right[:rank] + left[:, rank:] @ free_left @ free_right @ right[rank:]
    return rotation, rank


class _Basis(NamedTuple):
    """A basis [e, e] for users and its dual for Pins: userᵀ pin = 1. The first k columns are the standard form."""

    user: Floats
    pin: Floats


@dataclass(frozen=True, slots=True)
class _ProductSvd:
    """The SVD of U Vᵀ, up to the sides of length N: roots of the second moments, and that of the roots' product."""

    root_user: Floats
    root_pin: Floats
    left: Floats
    values: Floats
    right: Floats

    @property
    def rank(self) -> int:
        """Directions that the products are made of."""
        return int((self.values > STANDARD * self.values[0]).sum()) if self.values[0] > 0.0 else 0

    def basis(self, rank: int) -> _Basis:
        """Standard form of the first `rank` directions, completed to a basis."""
        root = np.sqrt(self.values[:rank])
        user = self.root_pin.T @ self.right[:rank].T / root
        pin = self.root_user.T @ self.left[:, :rank] / root
        # Complements: users orthogonal to the Pins' part, Pins to the users'; biorthogonal after the split below.
        rest_user, rest_pin = _complement(pin), _complement(user)
        left, values, right = np.linalg.svd(rest_user.T @ rest_pin)
        scale = np.sqrt(values)
        return _Basis(np.hstack([user, rest_user @ left / scale]), np.hstack([pin, rest_pin @ right.T / scale]))


def _product_svd(gram_user: Floats, gram_pin: Floats) -> _ProductSvd:
    root_user, root_pin = _root(gram_user), _root(gram_pin)
    left, values, right = np.linalg.svd(root_user @ root_pin.T)
    return _ProductSvd(root_user, root_pin, left, values, right)


def _root(gram: Floats) -> Floats:
    """R with RᵀR = gram, also where it is singular."""
    values, vectors = np.linalg.eigh(gram)
    root: Floats = np.sqrt(values.clip(min=0.0))[:, None] * vectors.T
    return root


def _complement(columns: Floats) -> Floats:
    """Orthonormal basis of what is orthogonal to all columns."""
    full: Floats = np.linalg.qr(columns, mode="complete").Q[:, columns.shape[1] :]
    return full


def _mean_over_entities(matrices: Mapping[str, Floats], sums: Sums) -> Floats:
    total: Floats = np.sum([matrix / sums[entity].count for entity, matrix in matrices.items()], axis=0)
    return total


def _check_common(sums: Sums) -> None:
    counts = {entity: each.count for entity, each in sums.items()}
    width = next(iter(sums.values())).day.shape[0]
    shown = ", ".join(f"{count} {entity}s" for entity, count in counts.items())
    if min(counts.values()) == 0 or sum(counts.values()) < width:
        raise AlignmentError(
            f"a day and its reference must share users and Pins, and at least {width} of them, as many as a vector is "
            f"wide (got {shown} in common); take a nearer reference, or publish a new embedding version"
        )
    for entity, each in sums.items():
        sizes = np.trace(each.day), np.trace(each.reference)
        if not (np.isfinite(sizes).all() and min(sizes) > 0.0):
            raise AlignmentError(
                f"{entity} vectors must be finite and not all zero (got second moments of {sizes[0]:.3g} for the day, "
                f"{sizes[1]:.3g} for the reference, over {each.count} in common); train the day again"
            )


def _cosines(day: tuple[Keys, Vectors], reference: tuple[Keys, Vectors], block_rows: int) -> Vectors:
    """Cosine of each common entity's two vectors."""
    parts = [
        np.einsum("ne,ne->n", block, onto) / np.maximum(_norms(block) * _norms(onto), 1e-12)
        for block, onto in common_blocks(day, reference, block_rows)
    ]
    return np.concatenate(parts).astype(np.float32) if parts else np.empty(0, np.float32)


def _norms(vectors: Vectors) -> Vectors:
    norms: Vectors = np.linalg.norm(vectors, axis=1)
    return norms


def _mean(values: Vectors) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def _quantile(values: Vectors, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")
