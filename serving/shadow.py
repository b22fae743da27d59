"""A second release scores a share of the live requests, off the answer path, and what differs is recorded.

Requests wait in a bounded queue: one that finds it full is dropped and counted, so an answer never waits.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from serving.answering import Question
from serving.metrics import Metrics
from serving.recommender import Recommender, without
from serving.releases import Release

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A request and what the live release answered."""

    release: str
    """The live release."""
    question: Question
    now: datetime
    """Moment against which TTLs were counted."""
    pctr: Mapping[int, float]
    """Answered Pins, best first, with their scores."""

    @classmethod
    def of(cls, release: Release, question: Question, now: datetime, pctr: Mapping[int, float]) -> Answered:
        """What a release answered to a question."""
        return cls(release=release.manifest.release, question=question, now=now, pctr=pctr)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How another release's answer to the same request differs."""

    overlap: float
    """Share of the answered Pins that the other answers too; 1 where neither answers any."""
    score_difference: float | None
    """Mean absolute difference of pctr on the Pins that both answer; none where there are none."""


class Shadow:
    """One shadow release with its queue and its thread."""

    def __init__(self, recommender: Recommender, share: float, capacity: int, metrics: Metrics) -> None:
        self._recommender, self.share, self._metrics = recommender, share, metrics
        self._waiting: queue.Queue[Answered | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._stopped = False
        self._thread.start()

    @property
    def release(self) -> str:
        """Release that is tried."""
        return self._recommender.release.manifest.release

    def chosen(self) -> bool:
        """Whether the next request belongs to the share."""
        return random.random() < self.share

    def offer(self, answered: Answered) -> None:
        """Let the release answer the same request later; dropped and counted when too many wait."""
        try:
            self._waiting.put_nowait(answered)
        except queue.Full:
            self._metrics.shadowed.labels("dropped").inc()

    def stop(self) -> None:
        """End the thread after the request in hand; those that wait are let go."""
        self._stopped = True
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join()

    def _work(self) -> None:
        while (answered := self._waiting.get()) is not None and not self._stopped:
            self._compare(answered)

    def _compare(self, answered: Answered) -> None:
        try:
            found = difference(answered, self._recommender)
        except Exception as error:
            self._metrics.shadowed.labels("failed").inc()
            logger.error("event=shadow_failed shadow=%s reason=%s: %s", self.release, type(error).__name__, error)
            return
        self._metrics.overlap.observe(found.overlap)
        if found.score_difference is not None:
            self._metrics.score_difference.observe(found.score_difference)
        logger.info(
            "event=shadow_compared live=%s shadow=%s surface=%s pins=%d overlap=%.4f score_difference=%s",
            answered.release,
            self.release,
            answered.question.surface,
            len(answered.pctr),
            found.overlap,
            "none" if found.score_difference is None else f"{found.score_difference:.6f}",
        )
        # Last, so that whoever sees the count finds what was recorded.
        self._metrics.shadowed.labels("compared").inc()


def difference(answered: Answered, recommender: Recommender) -> Difference:
    """How a release's own answer to a request differs from the one that was given."""
    asked, now = answered.question, answered.now
    user = recommender.user(asked.user_id, now)
    if asked.candidates is None:
        pin_ids = recommender.candidates(user, asked.surface, asked.k, asked.exclude).pin_ids
    else:
        pin_ids = without(asked.candidates, asked.exclude)
    own = recommender.rank(user, pin_ids, asked.surface, now, asked.terms).pctr_by_pin(asked.k)
    both = answered.pctr.keys() & own.keys()
    gaps = [abs(answered.pctr[pin] - own[pin]) for pin in both]
    overlap = len(both) / len(answered.pctr) if answered.pctr else float(not own)
    return Difference(overlap=overlap, score_difference=sum(gaps) / len(gaps) if gaps else None)
