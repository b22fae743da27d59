"""What a ranking answer was made of, handed over once it is made; nothing is copied here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from feature_repo.encoding import Array
from serving.experiments import Assignment
from serving.releases import Release

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the ranker read of the Pins that it scored."""

    pins: OnlineRead
    """Features and statuses of every candidate."""
    rows: Array
    """Positions in `pins` of the scored candidates, best first, int64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One answer of `recommend` or `rank`."""

    request_id: str
    route: str
    at: datetime
    """When it was answered, on the wall clock, UTC."""
    as_of: datetime
    """Moment against which TTLs were counted."""
    user_id: int
    surface: str
    context: Mapping[str, Any]
    """What else the request said about the situation; empty where nothing."""
    release: Release
    assignment: Assignment | None
    """Arm of the running split; none without a split."""
    source: str
    """Where the candidates come from: `retrieval`, `popular` or `request`."""
    degraded: str
    """Why the answer is less than it could be; empty for a whole one."""
    user: OnlineRead | None
    """Features of the user; none where the store did not answer."""
    pin_ids: list[int]
    """Answered Pins, best first."""
    pctr: list[float] | None
    """None for an answer that could not be scored."""
    pcvr: list[float] | None
    scores: list[float] | None
    """What the answer is ordered by; none where nothing was scored."""
    evidence: Evidence | None
    """None where nothing was read, such as for an answer without candidates."""
    num_candidates: int
    """Candidates that were scored."""
