"""From a request to ranked Pins: read features, retrieve, score, order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from feature_repo.contract import MISSING, PRESENT, join_key
from feature_repo.release.agreement import title_column
from serving.clock import Clock
from serving.fresh_pins import FreshPins
from serving.monitoring.served import Evidence
from serving.online_features import EntityFeatures
from serving.ranker import Scores
from serving.releases import Release

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

Source = Literal["retrieval", "popular", "request"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedPins:
    """Scored candidates, best first."""

    pin_ids: list[int]
    titles: list[str | None]
    pctr: list[float]
    pcvr: list[float] | None
    unknown: list[int]
    """Candidates that no Pin view knows; they are not scored."""
    status_counts: dict[str, dict[str, int]]
    """Per Pin view, how many candidates got each answer."""
    evidence: Evidence | None = None
    """What the ranker read; none without candidates."""

    def scores(self, k: int | None = None) -> dict[int, float]:
        """The first `k` Pins, best first, with their pctr."""
        return dict(list(zip(self.pin_ids, self.pctr, strict=True))[:k])


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Pins to be ranked, and where they come from."""

    pin_ids: list[int]
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommender:
    """One release with its online features; safe to use from many threads."""

    release: Release
    features: dict[str, EntityFeatures]
    """Online reads per entity."""
    clock: Clock
    retrieve: int
    """Candidates that are fetched before ranking."""
    fresh: FreshPins | None = None
    """Pins pushed after the release's index was made."""

    def user(self, user_id: int, now: datetime) -> OnlineRead:
        """Features of one user."""
        return self.features["user"].read([user_id], now)

    def candidates(self, user: OnlineRead, surface: str, k: int, exclude: Collection[int]) -> Candidates:
        """Nearest Pins of a user, or popular ones for a user without any present view."""
        if any_present(user):
            fresh = self.fresh.now() if self.fresh is not None else None
            found = self.release.retriever.retrieve(user.features, max(self.retrieve, k), exclude, fresh)
            return Candidates(pin_ids=found, source="retrieval")
        popular = self.release.manifest.popular_on(surface)
        return Candidates(pin_ids=without(popular, exclude)[: max(self.retrieve, k)], source="popular")

    def rank(self, user: OnlineRead, pin_ids: Sequence[int], surface: str, now: datetime) -> RankedPins:
        """Score candidates and order them by falling pctr; ties keep the given order."""
        if not pin_ids:
            return RankedPins(pin_ids=[], titles=[], pctr=[], pcvr=None, unknown=[], status_counts={})
        pins = self.features["pin"].read(pin_ids, now)
        known = known_mask(pins)
        frame = pins.features.filter(pa.array(known))
        scores = self._scores(user.features, frame, surface, now)
        order = scores.order()
        ranked = frame.take(pa.array(order))
        return RankedPins(
            pin_ids=ranked[join_key("pin")].to_pylist(),
            titles=_titles(ranked, title_column(self.release.manifest)),
            pctr=scores.pctr[order].tolist(),
            pcvr=None if scores.pcvr is None else scores.pcvr[order].tolist(),
            unknown=np.asarray(pin_ids)[~known].tolist(),
            status_counts={view: dict(Counter(pins.status(view))) for view in pins.statuses},
            evidence=Evidence(pins=pins, rows=np.flatnonzero(known)[order]),
        )

    def _scores(self, user: pa.Table, pins: pa.Table, surface: str, now: datetime) -> Scores:
        if pins.num_rows == 0:
            return Scores(pctr=np.zeros(0), pcvr=None)
        return self.release.ranker.score(user, pins, surface, now)


def any_present(rows: OnlineRead) -> bool:
    """Whether the first key has a usable row in at least one view."""
    return any(codes[0].as_py() == PRESENT for codes in rows.statuses.values())


def all_missing(rows: OnlineRead) -> bool:
    """Whether no view knows the first key at all, not even with an old row."""
    return all(codes[0].as_py() == MISSING for codes in rows.statuses.values())


def known_mask(rows: OnlineRead) -> Any:
    """Bool [N]: keys that at least one view knows."""
    return np.any([[answer != MISSING for answer in rows.status(view)] for view in rows.statuses], axis=0)


def without(pin_ids: Sequence[int], exclude: Collection[int]) -> list[int]:
    """Pins in their order, each once, without the excluded ones."""
    dropped = set(exclude)
    return [pin for pin in dict.fromkeys(pin_ids) if pin not in dropped]


def _titles(pins: pa.Table, column: str | None) -> list[str | None]:
    if column is None:
        return [None] * pins.num_rows
    return [None if title is None else str(title) for title in pins[column].to_pylist()]
