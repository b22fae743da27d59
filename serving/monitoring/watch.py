"""Told of every ranking answer once it is made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serving.monitoring.request import current
from serving.monitoring.served import Served

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead
    from serving.experiments import Assignment
    from serving.recommender import RankedPins, Recommender


class Watch:
    """Counts what was served, and hands it to the request log."""

    def ranked(
        self,
        recommender: Recommender,
        assignment: Assignment | None,
        user: OnlineRead | None,
        ranked: RankedPins,
        *,
        user_id: int,
        surface: str,
        as_of: datetime,
        k: int,
        source: str,
        degraded: str = "",
        context: dict[str, Any] | None = None,
    ) -> None:
        """Take note of one answer; called after it is made, and never longer than counting takes.

        Args:
            ranked: What was scored, best first.
            k: Pins of it that are answered.
            source: Where the candidates come from.
            degraded: Why the answer is less than it could be; empty for a whole one.
            context: What else the request said about the situation.
        """
        record = current()
        if record is not None:
            record.degraded = degraded
        Served(
            request_id=record.request_id if record is not None else "",
            route=record.route if record is not None else "",
            at=datetime.now(UTC),
            as_of=as_of,
            user_id=user_id,
            surface=surface,
            context=context or {},
            release=recommender.release,
            assignment=assignment,
            source=source,
            degraded=degraded,
            user=user,
            pin_ids=ranked.pin_ids[:k],
            pctr=ranked.pctr[:k],
            pcvr=None if ranked.pcvr is None else ranked.pcvr[:k],
            scores=ranked.pctr[:k],
            evidence=ranked.evidence,
            num_candidates=len(ranked.pin_ids),
        )
