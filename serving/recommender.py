"""From a user and a surface to ranked Pins: read features, retrieve, score, order.

Dims: B candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.contract import MISSING, PRESENT, feature_reference
from feature_repo.encoding import Array
from feature_repo.release.agreement import title_column
from serving.clock import Clock
from serving.entity_ids import EntityIds
from serving.fresh_pins import FreshPins, FreshVectors
from serving.monitoring.served import Evidence
from serving.online_features import EntityFeatures, by_view
from serving.pace import Pace
from serving.ranker import Scores
from serving.releases import Release
from serving.terms import PLAIN, Keys, Terms, kept_by, spread_order

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

Source = Literal["retrieval", "popular", "request"]
Mask = npt.NDArray[np.bool_]
NO_KEYS: Keys = np.empty(0, np.int64)
IS_MISSING = 1
"""Code of a key that a view does not know, as `stores.packed.cells` numbers the statuses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedPins:
    """Candidates, best first; scored, unless their features could not be read."""

    pin_ids: Keys
    scores: Scores | None
    """In the same order; none where they were not scored."""
    expected_value: Array | None = None
    """Float64 [B]; none unless the request had bids."""
    evidence: Evidence | None = None
    """What the ranker read; none without candidates, or where they were not scored."""
    title_column: str | None = None
    unknown: Keys = field(default_factory=lambda: NO_KEYS)
    """Candidates that no Pin view knows; they are not scored."""
    num_filtered: int = 0
    """Candidates that a filter of the request took out."""
    status_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per Pin view, how many candidates got each answer."""

    @property
    def pctr(self) -> Array | None:
        """Calibrated probability of a click [B]."""
        return None if self.scores is None else self.scores.pctr

    @property
    def pcvr(self) -> Array | None:
        """Calibrated probability of a conversion given a click [B]; none in a release without such a model."""
        return None if self.scores is None else self.scores.pcvr

    @property
    def score(self) -> Array | None:
        """What the Pins are ordered by, [B]: expected value where there are bids, else pctr."""
        return self.pctr if self.expected_value is None else self.expected_value

    def titles(self, k: int | None = None) -> list[str | None]:
        """Titles of the first `k`."""
        if self.title_column is None or self.evidence is None:
            return [None] * len(self.pin_ids[:k])
        rows = pa.array(self.evidence.rows[:k])
        found = self.evidence.pins.features[self.title_column].take(rows).to_pylist()
        return [None if title is None else str(title) for title in found]

    def pctr_by_pin(self, k: int | None = None) -> dict[int, float]:
        """The first `k` Pins, best first, with their pctr; empty where they were not scored."""
        if self.scores is None:
            return {}
        return dict(zip(self.pin_ids[:k].tolist(), self.scores.pctr[:k].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Pins to be ranked, and where they come from."""

    pin_ids: Keys
    source: Source
    scores: Array | None = None
    """Inner products with the query; none unless they were retrieved."""


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
    ids: EntityIds = field(default_factory=EntityIds)
    """How entity keys read outside."""
    pace: Pace = field(default_factory=Pace)
    """How long scoring took lately."""
    _plain_reads: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)
    """By entity, what an answer needs to which the request adds nothing."""

    def user(self, user_id: int, now: datetime) -> OnlineRead:
        """Features of one user.

        Raises:
            StoreDownError: The online store did not answer, or not in time.
        """
        return self.features["user"].read([user_id], now, self._read_of("user"))

    def fresh_vectors(self) -> FreshVectors | None:
        """Pins pushed until now."""
        return self.fresh.now() if self.fresh is not None else None

    def candidates(self, user: OnlineRead, surface: str, k: int, exclude: Collection[int]) -> Candidates:
        """Nearest Pins of a user, or popular ones for a user without any present view."""
        if not any_present(user):
            return self.popular(surface, k, exclude)
        retriever = self.release.retriever
        found = retriever.retrieve(user.features, max(self.retrieve, k), exclude, self.fresh_vectors())
        return Candidates(pin_ids=found.pin_ids, source="retrieval", scores=found.scores)

    def popular(self, surface: str, k: int, exclude: Collection[int]) -> Candidates:
        """What is popular on a surface, from the release itself."""
        popular = self.release.manifest.popular_on(surface)
        return Candidates(pin_ids=without(popular, exclude)[: max(self.retrieve, k)], source="popular")

    def rank(
        self,
        user: OnlineRead,
        pin_ids: Sequence[int] | Keys,
        surface: str,
        now: datetime,
        terms: Terms = PLAIN,
    ) -> RankedPins:
        """Score candidates and order them by falling score; ties keep the given order.

        Raises:
            StoreDownError: The online store did not answer, or not in time.
        """
        if len(pin_ids) == 0:
            return RankedPins(pin_ids=NO_KEYS, scores=Scores(pctr=np.zeros(0), pcvr=None))
        given = np.asarray(pin_ids, np.int64)
        pins = self.features["pin"].read(given, now, self._read_of("pin", terms.columns()))
        known = known_mask(pins)
        frame = pins.features if known.all() else pins.features.filter(pa.array(known))
        kept = kept_by(terms.filters, frame)
        num_filtered = len(kept) - int(kept.sum())
        frame = frame.filter(pa.array(kept)) if num_filtered else frame
        return self._ordered(
            user,
            frame,
            surface,
            terms.moment or now,
            terms,
            RankedPins(
                pin_ids=given[known][kept],
                scores=None,
                evidence=Evidence(pins=pins, rows=np.flatnonzero(known)[kept]),
                unknown=given[~known],
                num_filtered=num_filtered,
                status_counts={view: _counts(pins.codes(view)) for view in pins.statuses},
            ),
        )

    def _read_of(self, entity: str, more: Collection[str] = ()) -> frozenset[str]:
        """References that an answer needs: what the models read, and of every other view one feature for its status.

        Args:
            more: Columns that the request needs.
        """
        if more:
            return self._references(entity, more)
        if entity not in self._plain_reads:
            self._plain_reads[entity] = self._references(entity, ())
        return self._plain_reads[entity]

    def _references(self, entity: str, more: Collection[str]) -> frozenset[str]:
        manifest, features = self.release.manifest, self.features[entity]
        encoders = manifest.encoders
        specs = (encoders.query_user, encoders.ranking_user) if entity == "user" else (encoders.ranking_pin,)
        columns = {*more, title_column(manifest) if entity == "pin" else None}.union(
            *(each.columns() for each in specs)
        )
        found: set[str] = set()
        for view, names in by_view(features.references).items():
            needed = [name for name in names if feature_reference(view, name) in columns]
            found.update(f"{view}:{name}" for name in needed or names[:1])
        return frozenset(found)

    def _ordered(
        self, user: OnlineRead, frame: pa.Table, surface: str, moment: datetime, terms: Terms, unordered: RankedPins
    ) -> RankedPins:
        scores = self._scores(user.features, frame, surface, moment)
        pin_ids, evidence = unordered.pin_ids, unordered.evidence
        value = terms.bids.expected_value(pin_ids, scores.pctr, scores.pcvr) if terms.bids else None
        order = np.argsort(-(scores.pctr if value is None else value), kind="stable")
        if terms.spread is not None:
            order = spread_order(order, frame[terms.spread.column], terms.spread.at_most)
        return RankedPins(
            pin_ids=pin_ids[order],
            scores=scores.take(order),
            expected_value=None if value is None else value[order],
            evidence=None if evidence is None else Evidence(pins=evidence.pins, rows=evidence.rows[order]),
            title_column=title_column(self.release.manifest),
            unknown=unordered.unknown,
            num_filtered=unordered.num_filtered,
            status_counts=unordered.status_counts,
        )

    def _scores(self, user: pa.Table, pins: pa.Table, surface: str, moment: datetime) -> Scores:
        if pins.num_rows == 0:
            return Scores(pctr=np.zeros(0), pcvr=None)
        with self.pace.timed():
            return self.release.ranker.score(user, pins, surface, moment)


def any_present(rows: OnlineRead) -> bool:
    """Whether the first key has a usable row in at least one view."""
    return any(codes[0].as_py() == PRESENT for codes in rows.statuses.values())


def all_missing(rows: OnlineRead) -> bool:
    """Whether no view knows the first key at all, not even with an old row."""
    return all(codes[0].as_py() == MISSING for codes in rows.statuses.values())


def known_mask(rows: OnlineRead) -> Mask:
    """Keys that at least one view knows [B]."""
    known: Mask = np.any([rows.codes(view) != IS_MISSING for view in rows.statuses], axis=0)
    return known


def without(pin_ids: Sequence[int] | Keys, exclude: Collection[int]) -> Keys:
    """Pins in their order, each once, without the excluded ones."""
    unique = np.fromiter(dict.fromkeys(np.asarray(pin_ids, np.int64).tolist()), np.int64)
    if not exclude:
        return unique
    kept: Keys = unique[~np.isin(unique, np.fromiter(exclude, np.int64, len(exclude)))]
    return kept


def _counts(codes: npt.NDArray[np.int8]) -> dict[str, int]:
    from feature_repo.stores.packed.cells import STATUSES

    counted = np.bincount(codes, minlength=len(STATUSES)).tolist()
    return {status: count for status, count in zip(STATUSES, counted, strict=True) if count}
