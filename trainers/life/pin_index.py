"""The Pin index of a release on any day: the release's own candidate tower over that day's features from Feast.

Dims: P Pins, E width of a candidate vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import onnxruntime

from feature_repo.encoding import InputSpec
from trainers.data.connection import quote
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, batches
from trainers.data.retrieval_data import RetrievalReader
from trainers.life.index_kinds import make_index

Keys = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

ANY_SURFACE = "*"
NUM_POPULAR = 200
"""Popular Pins kept for users that nothing is known of."""
POPULAR_DAYS, FILLED_FROM_DAYS = 7, 28
"""Days whose engagements make a Pin popular, and days from which the list is filled up where those give too few."""
EMBEDDING_BATCH = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateProgram:
    """A released candidate tower, and how its vectors become those of an index."""

    file: Path
    """ONNX program."""
    output: str
    """Name of its output [P, E]."""
    encoder: InputSpec
    """`candidate.pin`: Pin features to the program's inputs."""
    temperature: float
    """Of training."""
    prior_days: int
    """Days of engagements that a Pin's popularity is counted from."""
    prior_weight: float
    """Weight of its logarithm."""

    @classmethod
    def of(cls, folder: Path, retrieval: Any, encoder: InputSpec) -> CandidateProgram:
        """The program of a release, from the `retrieval` part of its manifest."""
        return cls(
            file=folder / retrieval.candidate_model,
            output=retrieval.candidate_output,
            encoder=encoder,
            temperature=retrieval.temperature,
            prior_days=retrieval.prior.days,
            prior_weight=retrieval.prior.weight,
        )

    def vectors(self, pins: Examples) -> Vectors:
        """Candidate vectors [P, E]."""
        session = onnxruntime.InferenceSession(str(self.file), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        parts = [
            session.run([self.output], {name: _wide(pins.inputs[name][rows]) for name in names})[0]
            for rows in batches(np.arange(len(pins)), EMBEDDING_BATCH)
        ]
        (width,) = {session.get_outputs()[0].shape[1]}
        return np.concatenate(parts) if parts else np.empty((0, width), np.float32)


def write_pin_index(program: CandidateProgram, reader: RetrievalReader, cutoff: datetime, file: Path) -> Keys:
    """Write the index over the Pins that could be recommended at a cut-off.

    A vector ends with its Pin's popularity, by which a query's last element, 1, is multiplied.

    Args:
        reader: Reads Pin features with the program's encoder.

    Returns:
        Its Pin ids [P].

    Raises:
        ValueError: There is no Pin, or a vector is not finite.
    """
    pin_ids = reader.corpus(cutoff)
    if len(pin_ids) == 0:
        raise ValueError(f"the corpus of {cutoff:%Y-%m-%d} must hold a Pin (got none); compute that day's features")
    popularity = reader.log_popularity(pin_ids, cutoff, program.prior_days)
    bias = program.temperature * program.prior_weight * popularity
    candidates = program.vectors(reader.examples("pin", pin_ids, cutoff))
    vectors = np.concatenate([candidates, bias[:, None]], axis=1).astype(np.float32)
    if wrong := int((~np.isfinite(vectors).all(axis=1)).sum()):
        raise ValueError(f"candidate vectors must be finite (got {wrong} Pins of {len(pin_ids)} with others)")
    faiss.write_index(make_index(vectors, pin_ids), str(file))
    return pin_ids


def popular_pins(log: EventLog, cutoff: datetime) -> dict[str, list[int]]:
    """Most engaged Pins of the days before a cut-off, best first, per surface and (`*`) overall.

    Where fewer than `NUM_POPULAR` were engaged in the last `POPULAR_DAYS`, those of `FILLED_FROM_DAYS` follow.
    """
    label = quote(log.spec.task(log.spec.ctr_task).label)
    recent = (cutoff - timedelta(days=POPULAR_DAYS)).isoformat()
    counts = log.query(
        f"SELECT CAST(surface AS VARCHAR) AS surface, pin_id, count(*) AS total, "
        f"count(*) FILTER (event_timestamp >= TIMESTAMPTZ '{recent}') AS recent "
        f"FROM ({log.impressions_sql(cutoff - timedelta(days=FILLED_FROM_DAYS), cutoff)}) WHERE {label} = 1 "
        "GROUP BY surface, pin_id ORDER BY surface, pin_id"
    )
    surfaces, pins = np.asarray(counts["surface"].to_pylist(), dtype=np.str_), np.asarray(counts["pin_id"])
    weights = np.stack([np.asarray(counts[name]) for name in ("recent", "total")], axis=1).reshape(-1, 2)
    popular = {ANY_SURFACE: most_popular(pins, weights)}
    for surface in np.unique(surfaces):
        popular[str(surface)] = most_popular(pins[surfaces == surface], weights[surfaces == surface])
    return popular


def most_popular(pins: Keys, counts: Keys) -> list[int]:
    """Pins by falling counts, the first column before the second, equal ones by key; at most `NUM_POPULAR`.

    Args:
        pins: Keys, possibly repeated.
        counts: Counts [N, 2] of each; those of a repeated Pin add up.
    """
    unique, position = np.unique(pins, return_inverse=True)
    totals = np.zeros((len(unique), 2), np.int64)
    np.add.at(totals, position, counts)
    order = np.lexsort((unique, -totals[:, 1], -totals[:, 0]))
    return [int(pin) for pin in unique[order][:NUM_POPULAR]]


def _wide(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers as programs declare them."""
    return np.ascontiguousarray(values.astype(np.int64) if values.dtype == np.int32 else values)
