"""Encoded rows in memory and the order in which a model sees them.

Dims: N rows, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from feature_repo.encoding import Array, InputSpec, encode

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Model inputs and labels of N rows."""

    inputs: dict[str, Array]
    """Arrays by input name, N first; integers are kept as int32."""
    labels: npt.NDArray[np.float32]
    """Labels [N, T]; NaN where a task is not defined or not yet known."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Rows) -> Examples:
        """The rows at these positions."""
        return Examples(inputs={k: v[rows] for k, v in self.inputs.items()}, labels=self.labels[rows])

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """Inputs of these rows as tensors: float32, and int64 for indices."""
        return {name: _tensor(values[rows]) for name, values in self.inputs.items()}

    def all_tensors(self) -> dict[str, Tensor]:
        """Inputs of all rows as tensors that share their memory where the type allows it."""
        return {name: _tensor(values) for name, values in self.inputs.items()}

    def with_labels(self, columns: Sequence[int]) -> Self:
        """The same rows with these label columns alone."""
        return replace(self, labels=self.labels[:, columns])

    def with_inputs(self, inputs: dict[str, Array]) -> Examples:
        """The same rows with these inputs added or replaced."""
        return Examples(inputs=self.inputs | inputs, labels=self.labels)


def _tensor(values: Array) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor if tensor.is_floating_point() else tensor.long()


def _compact(values: Array) -> Array:
    return values.astype(np.int32) if values.dtype == np.int64 else values


def encode_sides(specs: Sequence[InputSpec], frame: pa.Table) -> dict[str, Array]:
    """Inputs of several sides of one frame, integers as int32."""
    return {name: _compact(values) for spec in specs for name, values in encode(spec, frame).items()}


def label_matrix(frame: pa.Table, tasks: Sequence[str]) -> npt.NDArray[np.float32]:
    """Task columns as float32 [N, T], NaN for null."""
    columns = [np.asarray(frame[task].cast(pa.float32()).to_numpy(), dtype=np.float32) for task in tasks]
    return np.stack(columns, axis=1)


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Rows of all parts, in order.

    Raises:
        ValueError: There is no part, so that not even the inputs' names are known.
    """
    if not parts:
        raise ValueError("at least one part must be given (got none): no impressions; move the dataset's window")
    names = parts[0].inputs
    return Examples(
        inputs={name: np.concatenate([part.inputs[name] for part in parts]) for name in names},
        labels=np.concatenate([part.labels for part in parts]),
    )


def batches(rows: Rows, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[Rows]:
    """Rows in batches, shuffled when a generator is given; the last one may be smaller."""
    order = rows if rng is None else rng.permutation(rows)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
