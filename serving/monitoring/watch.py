"""Told of every ranking answer once it is made: counts what was read and served, and hands it to the request log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_repo.contract import MISSING
from feature_repo.encoding import Array
from serving.metrics import Metrics
from serving.monitoring.request import current, request_id
from serving.monitoring.served import Served
from serving.request_log.log import RequestLog

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead
    from serving.answering import Degraded, Question, Recommended
    from serving.experiments import Assignment
    from serving.recommender import Recommender

logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Watch:
    """Counts what was served, and hands it to the request log where there is one."""

    def __init__(self, metrics: Metrics, log: RequestLog | None = None) -> None:
        self._metrics, self._log = metrics, log

    def start(self) -> None:
        """Begin to log."""
        if self._log is not None:
            self._log.start()

    def stop(self) -> None:
        """Write what is left of the request log."""
        if self._log is not None:
            self._log.stop()

    def degraded(self, degraded: Degraded | None) -> None:
        """Take note of an answer that is no ranking and less than it could be."""
        record = current()
        if degraded is not None and record is not None:
            record.degraded = degraded.reason
            self._metrics.degraded.labels(record.route, degraded.reason).inc()

    def answered(
        self,
        recommender: Recommender,
        assignment: Assignment | None,
        question: Question,
        found: Recommended,
        as_of: datetime,
    ) -> None:
        """Take note of one answer, after it is made; what goes wrong here is counted and no fault of the answer."""
        ranked, k = found.ranked, question.k
        degraded = "" if found.degraded is None else found.degraded.reason
        record = current()
        if record is not None:
            record.degraded = degraded
        served = Served(
            request_id=record.request_id if record is not None else request_id(None),
            route=record.route if record is not None else "",
            at=datetime.now(UTC),
            as_of=as_of,
            user_id=question.user_id,
            surface=question.surface,
            context=context_of(question),
            release=recommender.release,
            assignment=assignment,
            source=found.candidates.source,
            degraded=degraded,
            user=found.user,
            pin_ids=ranked.pin_ids[:k].tolist(),
            pctr=_first(ranked.pctr, k),
            pcvr=_first(ranked.pcvr, k),
            scores=_first(ranked.score, k),
            evidence=ranked.evidence,
            num_candidates=len(ranked.pin_ids),
        )
        try:
            self._count(served)
            if self._log is not None:
                self._log.offer(served)
        except Exception as error:
            self._metrics.watch_failures.inc()
            logger.error("event=watch_failed request_id=%s reason=%r", served.request_id, error)

    def _count(self, served: Served) -> None:
        metrics, release = self._metrics, served.release.manifest.release
        if served.degraded:
            metrics.degraded.labels(served.route, served.degraded).inc()
        if served.assignment is not None:
            metrics.split.labels(served.assignment.split, served.assignment.arm).inc()
        pins = served.evidence.pins if served.evidence is not None else None
        self._count_rows((read for read in (served.user, pins) if read is not None), served.as_of)
        if served.pctr is not None:
            metrics.score.labels("pctr", release).observe_many(np.asarray(served.pctr))
        if served.pcvr is not None:
            metrics.score.labels("pcvr", release).observe_many(np.asarray(served.pcvr))

    def _count_rows(self, reads: Iterable[OnlineRead], as_of: datetime) -> None:
        # Imported here, because a store's module brings Feast along; it is loaded by now.
        from feature_repo.stores.packed.cells import STATUSES

        now_us = (as_of - _EPOCH).total_seconds() * 1e6
        for read in reads:
            for view, codes in read.statuses.items():
                counts = np.bincount(codes.indices.to_numpy(), minlength=len(STATUSES)).tolist()
                for status, count in zip(STATUSES, counts, strict=True):
                    if count:
                        self._metrics.feature_rows.labels(view, status).inc(count)
                if counts[STATUSES.index(MISSING)] < len(codes):
                    micros = read.event_timestamps[view].drop_null().view(pa.int64())
                    ages = (now_us - np.asarray(micros)) / 1e6
                    self._metrics.feature_age.labels(view).observe_many(ages)


def _first(values: Array | None, k: int) -> list[float] | None:
    return None if values is None else values[:k].tolist()


def context_of(question: Question) -> dict[str, Any]:
    """What else a request said about the situation: the moment of the impression."""
    moment = question.terms.moment
    return {} if moment is None else {"moment": moment.isoformat()}
