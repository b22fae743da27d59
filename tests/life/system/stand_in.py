"""A stand-in for the upstream model whose vectors say which space they are of.

Every entity has a latent vector for good, and a version shows it turned by a rotation of its own: within a version all
dot products are those of the latent vectors, across two they are chance. Each day of training turns the space a little
further, as a warm start does, and a seed begins elsewhere, as a retrain does. Keys, inputs, older vectors and
checkpoints go through the same code as a real model's.
Dims: N rows, d width of a vector.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from feature_repo.encoding import Array, InputSpec, encode
from feature_repo.push.towers import Program
from trainers import checkpoint
from trainers.data.examples import Examples, Rows
from trainers.life.push_towers import FrameTower
from trainers.progress import Stage
from trainers.upstream.compatibility import BackwardMap, Compatibility
from trainers.upstream.model import UpstreamConfig
from trainers.upstream.recipes import UpstreamRecipe
from trainers.upstream.trainer import UpstreamExamples

DAMAGE = "HEADWATER_TEST_DAMAGE"
"""Environment variable: when set, a day's training tears users and Pins apart, which no alignment can mend."""
TURN = 0.02
"""Radians by which a day of training turns the space."""

Vectors = npt.NDArray[np.float32]


class Space(nn.Module):
    """The only weights: the rotation of the space, and whether users stand opposite of where they should."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        random = np.random.default_rng([seed, dim])
        self.register_buffer("basis", torch.from_numpy(np.linalg.qr(random.normal(size=(dim, dim)))[0]))
        self.register_buffer("user_sign", torch.ones(()))


class StandInTrainer:
    """What `UpstreamTrainer` does, with a rotation in place of towers."""

    def __init__(
        self, config: UpstreamConfig, recipe: UpstreamRecipe, seed: int, compatibility: Compatibility | None = None
    ) -> None:
        self.recipe, self.compatibility = recipe, compatibility
        self.num_tasks = len(config.tasks)
        self.model = Space(config.embedding_dim, seed)
        self.backward: BackwardMap | None = None
        if compatibility is not None:
            self.backward = BackwardMap(config.embedding_dim, compatibility.older_dim)
            self.model.add_module("backward_map", self.backward)

    def fit(
        self,
        data: UpstreamExamples,
        rows: Rows,
        *,
        lr: float,
        rng: np.random.Generator,
        stage: Stage,
        subject: str = "stand-in",
    ) -> float:
        """Turn the space a little, and fit the map to the older version's vectors of the rows."""
        del lr, subject
        self.model.basis = torch.from_numpy(_basis(self.model) @ _small_rotation(rng, len(self.model.basis)))
        if os.environ.get(DAMAGE):
            self.model.user_sign = -self.model.user_sign
        for entity in ("user", "pin"):
            older = data.examples.inputs.get(f"older_{entity}")
            if self.backward is not None and older is not None:
                self._fit_map(entity, data.examples, older, rows)
        stage.advance(len(rows))
        return 0.0

    def _fit_map(self, entity: str, examples: Examples, older: Vectors, rows: Rows) -> None:
        assert self.backward is not None
        present = older[rows, -1] > 0
        own = self._shown(entity, examples.inputs[f"{entity}_id_0"][rows])[present]
        if len(own) >= 2 * own.shape[1]:
            fitted = BackwardMap.fitted(own, older[rows][present][:, :-1])
            self.backward.matrix.data = fitted.matrix.data

    def score(self, examples: Examples, rows: Rows) -> Vectors:
        """Logits [N, T]; the stand-in knows nothing of tasks."""
        del examples
        return np.zeros((len(rows), self.num_tasks), np.float32)

    def embed(self, entity: str, examples: Examples) -> Vectors:
        """Vectors [N, d] of unit length."""
        return self._shown(entity, examples.inputs[f"{entity}_id_0"])

    def _shown(self, entity: str, buckets: npt.NDArray[Any]) -> Vectors:
        sign = float(self.model.user_sign) if entity == "user" else 1.0
        dim = len(self.model.basis)
        latent = np.array([_latent(entity, int(each), dim) for each in buckets]).reshape(-1, dim)
        return (sign * latent @ _basis(self.model)).astype(np.float32)

    def save(self, path: Path, notes: dict[str, Any]) -> None:
        """Checkpoint the rotation."""
        checkpoint.save(path, self.model, notes=notes)

    def load(self, path: Path) -> dict[str, Any]:
        """Go on from a checkpoint."""
        _, notes = checkpoint.load(path, self.model)
        return notes


def export(tower: FrameTower, examples: Examples, file: Path) -> float:
    """Write a tower as the one matrix that it is; what an ONNX export does, for pushes."""
    del examples
    sign = float(tower.model.user_sign) if tower._is_user else 1.0
    with file.open("wb") as out:
        np.save(out, sign * _basis(tower.model) @ tower.matrix.numpy().astype(np.float64))
    return 0.0


def load_program(file: Path, output: str) -> Program:
    """A tower that `export` wrote."""
    del output
    entity, matrix = file.name.partition("_")[0], np.load(file)

    def run(inputs: dict[str, Array]) -> Array:
        buckets = inputs[f"{entity}_id_0"]
        turned = np.array([_latent(entity, int(each), len(matrix)) for each in buckets]).reshape(-1, len(matrix))
        found: Array = (turned @ matrix).astype(np.float32)
        return found

    return run


def latent_vectors(spec: InputSpec, keys: Sequence[int], dim: int) -> dict[int, npt.NDArray[np.float64]]:
    """Where entities stand for good, by key."""
    entity, own = spec.side, spec.ids[0]
    buckets = encode(InputSpec(side=entity, ids=(own,)), pa.table({own.column: pa.array(keys, pa.int64())}))
    found = zip(keys, buckets[f"{entity}_id_0"], strict=True)
    return {key: _latent(entity, int(bucket), dim) for key, bucket in found}


def _basis(model: Space) -> npt.NDArray[np.float64]:
    return np.asarray(model.basis.numpy(), np.float64)


def _small_rotation(rng: np.random.Generator, dim: int) -> npt.NDArray[np.float64]:
    sides = rng.normal(size=(dim, dim)) * TURN / np.sqrt(dim)
    turned, upper = np.linalg.qr(np.eye(dim) + sides - sides.T)
    return np.asarray(turned * np.sign(np.diag(upper)))


def _latent(entity: str, bucket: int, dim: int) -> npt.NDArray[np.float64]:
    vector = np.random.default_rng([ord(entity[0]), bucket]).normal(size=dim)
    return np.asarray(vector / np.linalg.norm(vector))
