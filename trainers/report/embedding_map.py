"""A map of the newest Pin embeddings: two dimensions, attributes to colour it by, and nearest neighbours by name.

The most shown Pins are drawn. PCA is built in; where `umap-learn` is installed (the extra `maps`), UMAP is drawn too.
Dims: N Pins drawn, E width of a vector.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contract import EmbeddingVersion, embedding_view
from trainers.data.event_log import EventLog

logger = logging.getLogger(__name__)

MOST_PINS = 1_200
NUM_NEIGHBOURS = 6
MOST_VALUES = 6
"""Values of an attribute that have a colour of their own; the others share one."""
_KEYS_FILE = "keys_pin.parquet"
_LONGEST_NAME = 60

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Colouring:
    """An attribute as groups of Pins."""

    name: str
    values: tuple[str, ...]
    """Name of each group, the largest first; the last may be all others."""
    groups: tuple[int, ...]
    """Group of each Pin, [N]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingMap:
    """Everything that the page needs to draw a map without asking anyone."""

    view: str
    day: str
    projections: dict[str, tuple[tuple[int, int], ...]]
    """Places [N] by method, in thousandths of the map's width and height."""
    explained: float
    """Share of the variance that PCA's two dimensions hold."""
    names: tuple[str, ...]
    colourings: tuple[Colouring, ...]
    neighbours: tuple[tuple[tuple[int, float], ...], ...]
    """Positions and cosines of the Pins nearest to each, [N, NUM_NEIGHBOURS]."""
    dim: int
    """Width of the vectors."""
    num_pins: int
    """Pins in the snapshot, drawn or not."""

    def payload(self) -> str:
        """What the page's script reads, as JSON that can stand inside a script element."""
        found: dict[str, Any] = {
            "names": self.names,
            "maps": self.projections,
            "near": self.neighbours,
            "colours": [{"name": each.name, "values": each.values, "groups": each.groups} for each in self.colourings],
        }
        return json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def embedding_map(log: EventLog, offline: Path, version: EmbeddingVersion) -> EmbeddingMap | None:
    """The map of a version's Pins; none where fewer than three have a vector."""
    view = embedding_view("pin", version.model, version.version)
    files = sorted((offline / view).glob("date=*.parquet"))
    if not files:
        return None
    table = pq.ParquetFile(files[-1]).read(columns=["pin_id", "embedding"])
    drawn = _most_shown(log, table)
    if len(drawn) < 3:
        return None
    vectors = drawn["embedding"].combine_chunks().flatten().to_numpy().reshape(len(drawn), -1).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    attributes = _attributes(log, drawn["pin_id"])
    places, explained = pca(vectors)
    projections = {"PCA": _grid(places)}
    if importlib.util.find_spec("umap") is not None:
        projections["UMAP"] = _grid(_umap(vectors))
    return EmbeddingMap(
        view=view,
        day=files[-1].stem.removeprefix("date="),
        projections=projections,
        explained=explained,
        names=_names(log, drawn["pin_id"], attributes),
        colourings=tuple(_colourings(log, attributes)),
        neighbours=nearest(vectors),
        dim=vectors.shape[1],
        num_pins=len(table),
    )


def pca(vectors: Floats) -> tuple[Floats, float]:
    """The first two principal components [N, 2], and the share of the variance that they hold."""
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    places: Floats = np.zeros((len(vectors), 2), np.float32)
    kept = min(2, len(values))
    places[:, :kept] = left[:, :kept] * values[:kept]
    total = float((values**2).sum())
    return places, float((values[:2] ** 2).sum()) / total if total else 1.0


def nearest(vectors: Floats) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Positions and cosines of each unit vector's nearest others, best first."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    found = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NUM_NEIGHBOURS, len(vectors) - 1)]
    return tuple(
        tuple((int(other), round(float(row[other]), 3)) for other in others)
        for row, others in zip(cosines, found, strict=True)
    )


def _umap(vectors: Floats) -> Floats:
    from umap import UMAP

    return np.asarray(UMAP(n_neighbors=15, min_dist=0.1, metric="cosine", random_state=1).fit_transform(vectors))


def _grid(places: Floats) -> tuple[tuple[int, int], ...]:
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = np.rint(1000 * (places - low) / np.maximum(high - low, 1e-12)).astype(int)
    return tuple((int(x), int(y)) for x, y in scaled)


def _most_shown(log: EventLog, table: pa.Table) -> pa.Table:
    """Rows of the Pins with the most impressions of the whole log, the most shown first."""
    impressions = log.impressions_sql(log.spec.window.features_from, log.spec.window.until)
    counts = log.query(f"SELECT pin_id, count(*) AS n FROM ({impressions}) GROUP BY pin_id ORDER BY n DESC, pin_id")
    have = pc.index_in(counts["pin_id"], table["pin_id"].combine_chunks())
    return table.take(pc.drop_null(have).combine_chunks()[:MOST_PINS] if len(have) else have)


def _attributes(log: EventLog, pins: pa.ChunkedArray) -> pa.Table | None:
    """The newest attributes of the Pins in their order; none without a table of Pins."""
    path = log.path / "pins.parquet"
    if not path.exists():
        return None
    table = pq.ParquetFile(path).read().sort_by([("pin_id", "ascending"), ("event_timestamp", "descending")])
    return table.take(pc.index_in(pins, table["pin_id"].combine_chunks()).combine_chunks())


def _names(log: EventLog, pins: pa.ChunkedArray, attributes: pa.Table | None) -> tuple[str, ...]:
    """What a person calls each Pin: its title, else the id of the files, else its key."""
    keys = [str(pin) for pin in pins.to_pylist()]
    if (log.path / _KEYS_FILE).exists():
        known = pq.ParquetFile(log.path / _KEYS_FILE).read()
        texts = known["key"].take(pc.index_in(pins, known["pin_id"].combine_chunks()).combine_chunks()).to_pylist()
        keys = [text or key for text, key in zip(texts, keys, strict=True)]
    title = log.spec.pin_title
    if title is None or attributes is None:
        return tuple(keys)
    titles = attributes[title].to_pylist()
    return tuple(
        f"{str(name)[:_LONGEST_NAME]} ({key})" if name else key for name, key in zip(titles, keys, strict=True)
    )


def _colourings(log: EventLog, attributes: pa.Table | None) -> list[Colouring]:
    """Attributes of few enough values to be told apart by colour, the clearest first."""
    if attributes is None:
        return []
    found = []
    for attribute in log.spec.pin_attributes:
        if attribute.kind != "categorical" or attribute.name == log.spec.pin_title:
            continue
        colouring = _colouring(attribute.name, attributes[attribute.name])
        if colouring is not None:
            found.append(colouring)
    return sorted(found, key=_unevenness)


def _unevenness(colouring: Colouring) -> float:
    """Chance that two Pins have the same colour: 1 where all have one, least where all colours are as frequent."""
    counts = [colouring.groups.count(place) for place in range(len(colouring.values))]
    return sum(count**2 for count in counts) / len(colouring.groups) ** 2


def _colouring(name: str, values: pa.ChunkedArray) -> Colouring | None:
    texts = ["missing" if value is None else str(value) for value in values.to_pylist()]
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    largest = sorted(counts, key=lambda text: (-counts[text], text))
    if len(largest) < 2:
        return None
    shown = largest if len(largest) <= MOST_VALUES else largest[: MOST_VALUES - 1]
    places = {text: place for place, text in enumerate(shown)}
    labels = tuple(shown) if len(shown) == len(largest) else (*shown, f"{len(largest) - len(shown)} others")
    return Colouring(name=name, values=labels, groups=tuple(places.get(text, len(shown)) for text in texts))
