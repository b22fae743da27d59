"""What the page at `/` shows: the live release, a user's recommendations and why each came, similar Pins, freshness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from serving.answering import Degraded, Question, Recommended, recommend
from serving.deadlines import Deadline
from serving.online_features import by_view
from serving.recommender import Recommender
from serving.titles import read_titles

if TYPE_CHECKING:
    from feature_repo.stores.online.status import OnlineRead

SHOWN_ITEMS = 5
"""Elements of a list that are shown."""
LONG_LIST = 16
"""A list of numbers from this length on is shown as a vector."""
FEW_SIMILAR = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One feature as people read it."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewShown:
    """One view's row."""

    view: str
    status: str
    age: str
    values: list[Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class PinShown:
    """One Pin of an answer."""

    place: int
    pin_id: int | str
    title: str | None
    pctr: float | None
    pcvr: float | None
    why: str
    values: list[Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimilarShown:
    """One Pin near another."""

    pin_id: int | str
    title: str | None
    similarity: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A user's recommendations."""

    pins: list[PinShown]
    views: list[ViewShown]
    source: str
    cold: bool
    degraded: Degraded | None
    num_candidates: int
    num_unknown: int
    """Candidates that no Pin view knows."""
    pin_freshness: list[Value]
    """Per Pin view, how many candidates were present, missing, outside max age."""

    @property
    def largest_pctr(self) -> float:
        """What the longest bar stands for, above 0."""
        return max((pin.pctr for pin in self.pins if pin.pctr), default=1.0)


def recommendations(recommender: Recommender, question: Question, now: datetime, deadline: Deadline) -> Shown:
    """The answer to a question, with what it came from."""
    found = recommend(recommender, question, now, deadline)
    views = [] if found.user is None else _views(found.user, now)
    return Shown(
        pins=_pins(recommender, found, question.k),
        views=views,
        source=found.candidates.source,
        cold=bool(views) and all(view.status == "missing" for view in views),
        degraded=found.degraded,
        num_candidates=len(found.candidates.pin_ids),
        num_unknown=len(found.ranked.unknown),
        pin_freshness=[
            Value(name=view, text=", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items()))
            for view, counts in found.ranked.status_counts.items()
        ],
    )


def similar(
    recommender: Recommender, pin_id: int, now: datetime, deadline: Deadline
) -> tuple[str | None, list[SimilarShown]] | None:
    """Title of a Pin and Pins like it; none for one without a vector."""
    found = recommender.release.retriever.similar(pin_id, FEW_SIMILAR, (), recommender.fresh_vectors())
    if found is None:
        return None
    (own, *titles), _ = read_titles(recommender, np.r_[np.int64(pin_id), found.pin_ids], now, deadline)
    rows = zip(recommender.ids.shown_pins(found.pin_ids), titles, found.scores.tolist(), strict=True)
    return own, [SimilarShown(pin_id=pin, title=title, similarity=score) for pin, title, score in rows]


def age_text(age: timedelta) -> str:
    """An age as people say it."""
    hours = age.total_seconds() / 3600
    if hours < 0:
        return "from the future"
    if hours < 1:
        return f"{round(hours * 60)} min old"
    return f"{round(hours)} h old" if hours < 48 else f"{round(hours / 24)} days old"


def value_text(value: Any) -> str:
    """A feature value as people read it; a vector by its width and length."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return _list_text(value)
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return str(value)


def _list_text(values: list[Any]) -> str:
    if not values:
        return "empty"
    if len(values) >= LONG_LIST and isinstance(values[0], float):
        return f"{len(values)} numbers, norm {float(np.linalg.norm(np.array(values, np.float64))):.3f}"
    shown = ", ".join(value_text(value) for value in values[:SHOWN_ITEMS])
    return shown if len(values) <= SHOWN_ITEMS else f"{shown}, … ({len(values)})"


def _views(user: OnlineRead, now: datetime) -> list[ViewShown]:
    columns = by_view([name.replace("__", ":", 1) for name in user.features.column_names if "__" in name])
    shown = []
    for view, names in columns.items():
        stamp = user.event_timestamps[view][0].as_py()
        shown.append(
            ViewShown(
                view=view,
                status=str(user.status(view)[0]),
                age="" if stamp is None else age_text(now - stamp),
                values=[Value(name=name, text=_cell(user.features, f"{view}__{name}", 0)) for name in names],
            )
        )
    return shown


def _pins(recommender: Recommender, found: Recommended, k: int) -> list[PinShown]:
    ranked = found.ranked
    shown = recommender.ids.shown_pins(ranked.pin_ids[:k])
    evidence = ranked.evidence
    features = None if evidence is None else evidence.pins.features
    columns = [] if features is None else _told(recommender, features.column_names)
    pins = []
    for place, (pin_id, key, title) in enumerate(
        zip(shown, ranked.pin_ids[:k].tolist(), ranked.titles(k), strict=True)
    ):
        pins.append(
            PinShown(
                place=place + 1,
                pin_id=pin_id,
                title=title,
                pctr=None if ranked.pctr is None else float(ranked.pctr[place]),
                pcvr=None if ranked.pcvr is None else float(ranked.pcvr[place]),
                why=_why(found, key),
                values=[
                    Value(
                        name=column.replace("__", ": ", 1),
                        text=_cell(features, column, 0 if evidence is None else int(evidence.rows[place])),
                    )
                    for column in columns
                ],
            )
        )
    return pins


def _told(recommender: Recommender, columns: Sequence[str]) -> list[str]:
    """Columns that the rankers read, in their order."""
    read = dict.fromkeys(recommender.release.manifest.encoders.ranking_pin.columns())
    return [column for column in read if column in columns and "__" in column]


def _why(found: Recommended, pin_id: int) -> str:
    candidates = found.candidates
    (places,) = np.nonzero(candidates.pin_ids == pin_id)
    if candidates.source == "popular" or not len(places):
        return "popular on this surface"
    place = int(places[0])
    if candidates.scores is None:
        return f"asked for, as number {place + 1}"
    return f"retrieved as number {place + 1} of {len(candidates.pin_ids)}, score {float(candidates.scores[place]):.3f}"


def _cell(table: pa.Table | None, column: str, row: int) -> str:
    return "–" if table is None else value_text(table[column][row].as_py())
