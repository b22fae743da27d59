"""Recorded transitions: who changed what, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, or_, select

from feature_repo.catalogue.errors import WrongStateError
from feature_repo.catalogue.records import CATALOGUE, Transition, now, plain
from feature_repo.catalogue.tables import transitions


@dataclass(frozen=True, kw_only=True, slots=True)
class Author:
    """Who makes a change, and why. The same author repeating a change repeats a step and changes nothing."""

    who: str
    """`user@host` of an operator, or the name of a step."""
    why: str

    def __post_init__(self) -> None:
        if not self.who.strip() or not self.why.strip():
            raise ValueError(f"every change must say who makes it and why (got who {self.who!r}, why {self.why!r})")

    def made(self, transition: Transition | None) -> bool:
        """Whether a transition is this author's."""
        return transition is not None and (transition.who, transition.why) == (self.who, self.why)


def record(
    connection: Connection,
    subject: str,
    change: tuple[str | None, str | None],
    author: Author,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down a change from one state to another, or one that leaves the state as it is."""
    before, after = change
    row = {"before": before, "after": after, "at": now(), "who": author.who, "why": author.why}
    connection.execute(insert(transitions).values(subject=subject, details=plain(details or {}), **row))


def last_move(connection: Connection, subject: str) -> Transition | None:
    """Newest transition since the last reset that changed the subject's state."""
    moved = or_(transitions.c.before.is_(None), transitions.c.before != transitions.c.after)
    return _newest(connection, _since_reset(subject).where(moved))


def last_change(connection: Connection, subject: str) -> Transition | None:
    """Newest transition of a subject since the last reset."""
    return _newest(connection, _since_reset(subject))


def read_transitions(connection: Connection, subject: str | None, limit: int | None) -> list[Transition]:
    """The newest `limit` transitions, oldest first."""
    query = select(transitions).order_by(transitions.c.id.desc()).limit(limit)
    if subject is not None:
        query = query.where(transitions.c.subject == subject)
    return [_transition(row) for row in reversed(connection.execute(query).all())]


def newest_change(connection: Connection) -> int:
    """Number of the newest transition; 0 where nothing has changed yet."""
    newest: int = connection.execute(select(func.coalesce(func.max(transitions.c.id), 0))).scalar_one()
    return newest


def wrong_state(subject: str, must: str, got: str | None, last: Transition | None) -> WrongStateError:
    """Error for a change that came second: what must hold, what holds, and who made it so, when and why."""
    told = "" if last is None else f": {moved(last)}"
    return WrongStateError(f"{subject} must {must} (got {got or 'none'}){told}; look at it again, then decide", last)


def moved(transition: Transition) -> str:
    """Who made a transition, when and why, as an error says it."""
    return f"{transition.who} made it so at {transition.at.isoformat(timespec='seconds')} because {transition.why!r}"


def _transition(row: Row[Any]) -> Transition:
    return Transition(**row._mapping)


def _since_reset(subject: str) -> Select[Any]:
    reset = select(func.coalesce(func.max(transitions.c.id), 0)).where(transitions.c.subject == CATALOGUE)
    return select(transitions).where(transitions.c.subject == subject, transitions.c.id > reset.scalar_subquery())


def _newest(connection: Connection, query: Select[Any]) -> Transition | None:
    row = connection.execute(query.order_by(transitions.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else _transition(row)
