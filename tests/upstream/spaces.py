"""Made-up vectors of users and Pins, and what may happen to a space."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainers.upstream.aggregate import Vectors
from trainers.upstream.frame import Frame

Floats = npt.NDArray[np.float64]


def rotation(dim: int, seed: int = 0) -> Floats:
    """A random orthogonal matrix [dim, dim]; every second one reflects."""
    random = np.random.default_rng(seed)
    found: Floats = np.linalg.qr(random.normal(size=(dim, dim))).Q * random.choice([-1.0, 1.0], dim)
    return found


def frame(num_users: int = 300, num_pins: int = 120, dim: int = 8, seed: int = 0) -> Frame:
    """Unit vectors around a mean, with directions of different weight, as trained ones are."""
    random = np.random.default_rng(seed)
    weights = np.linspace(1.5, 0.5, dim)

    def vectors(count: int) -> Vectors:
        raw = random.normal(size=(count, dim)) * weights + np.r_[1.0, np.zeros(dim - 1)]
        unit: Vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        return unit

    return {"user": (np.arange(num_users), vectors(num_users)), "pin": (10 * np.arange(num_pins), vectors(num_pins))}


def mapped(day: Frame, user: Floats, pin: Floats | None = None) -> Frame:
    """The frame in another basis: users by a matrix, Pins by its inverse transposed unless one is given."""
    other = np.linalg.inv(user).T if pin is None else pin
    return {
        "user": (day["user"][0], (day["user"][1] @ user).astype(np.float32)),
        "pin": (day["pin"][0], (day["pin"][1] @ other).astype(np.float32)),
    }


def jittered(day: Frame, noise: float, seed: int = 0) -> Frame:
    """The frame with a little noise in every element."""
    random = np.random.default_rng(seed)
    return {
        entity: (keys, (vectors + noise * random.normal(size=vectors.shape)).astype(np.float32))
        for entity, (keys, vectors) in day.items()
    }


def dots(day: Frame) -> Vectors:
    """Every user·Pin dot product [users, Pins]."""
    products: Vectors = day["user"][1].astype(np.float64) @ day["pin"][1].astype(np.float64).T
    return products
