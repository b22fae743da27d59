"""What a request may ask of a ranking, as JSON: who, where, when, filters, bids, a cap per category."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from feature_repo.contract import feature_reference
from serving.answers import LONGEST_TEXT, MAX_CANDIDATES, Body, EntityId, EntityKey, EntityText, Surface
from serving.errors import ErrorDetail, RequestError
from serving.recommender import Recommender
from serving.terms import Bids, Filter, Per, Spread, Terms

MAX_FILTERS, MAX_VALUES = 10, 100

Ids = list[EntityKey] | list[EntityText]
Category = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Field(max_length=LONGEST_TEXT)]
Categories = Annotated[list[Category], Field(max_length=MAX_VALUES)]
Reference = Annotated[str, Field(max_length=LONGEST_TEXT)]
"""Feast reference `view:feature`."""
Amount = Annotated[FiniteFloat, Field(ge=0, le=1e12)]
Moment = Annotated[
    AwareDatetime, Field(strict=False, ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))
]


class Context(Body):
    """Circumstances of the impression."""

    moment: Moment | None = None
    """When it will be, of which rankers read the hour and the weekday; `as_of` when absent."""


class PinFilter(Body):
    """Which Pins may be answered, by a text or an integer of theirs."""

    feature: Reference
    """Feast reference `view:feature`, among those of Pins that the release reads."""
    any_of: Categories | None = None
    """Values of which a Pin must have one."""
    none_of: Annotated[Categories, Field(default_factory=list)]
    """Values that it must not have; a Pin without a value passes."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.any_of is None and not self.none_of:
            raise ValueError("a filter must have any_of or none_of")
        return self


class PinBid(Body):
    """What one Pin bids."""

    pin_id: EntityId
    bid: Amount


class BidsBody(Body):
    """What a click or a conversion is worth; Pins are then ordered by expected value."""

    per: Per = "click"
    """`click`: expected value is bid × pctr; `conversion`: bid × pctr × pcvr."""
    pins: Annotated[list[PinBid], Field(default_factory=list, max_length=MAX_CANDIDATES)]
    default: Amount = 0.0
    """Bid of every Pin that is not among `pins`."""


class Diversify(Body):
    """A cap per category: Pins beyond it follow once every category has had its turn."""

    feature: Reference
    """Feast reference `view:feature` of a text or an integer of Pins."""
    at_most: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)]
    """Pins of one category in a turn."""


class RankingRequest(Body):
    """Who would see Pins, where and when, and how they are to be ordered."""

    user_id: EntityId
    surface: Surface
    context: Context = Field(default_factory=Context)
    filters: Annotated[list[PinFilter], Field(default_factory=list, max_length=MAX_FILTERS)]
    bids: BidsBody | None = None
    diversify: Diversify | None = None

    def terms(self, recommender: Recommender) -> Terms:
        """What is asked, in terms of the release that answers.

        Raises:
            RequestError: A feature is none that it reads or holds no category, or it has no model that a bid needs.
        """
        columns = {each: _column(recommender, name, each) for name, each in self._features()}
        filters = tuple(
            Filter(
                column=columns[each.feature],
                any_of=None if each.any_of is None else tuple(each.any_of),
                none_of=tuple(each.none_of),
            )
            for each in self.filters
        )
        spread = None
        if self.diversify is not None:
            spread = Spread(column=columns[self.diversify.feature], at_most=self.diversify.at_most)
        return Terms(filters=filters, bids=self._bids(recommender), spread=spread, moment=self.context.moment)

    def _features(self) -> list[tuple[str, str]]:
        """Paths in the request, and the references there."""
        found = [(f"filters.{place}.feature", each.feature) for place, each in enumerate(self.filters)]
        return [*found, ("diversify.feature", self.diversify.feature)] if self.diversify else found

    def _bids(self, recommender: Recommender) -> Bids | None:
        if self.bids is None:
            return None
        if self.bids.per == "conversion" and recommender.release.ranker.pcvr is None:
            raise RequestError(
                ErrorDetail(
                    code="no_conversion_model",
                    message="bids.per must be 'click' for a release without a model of conversions (got 'conversion')",
                    field="bids.per",
                    value="conversion",
                    remedy="bid per click",
                )
            )
        keys = recommender.ids.keys("pin", [each.pin_id for each in self.bids.pins], "bids.pins", ".pin_id")
        of_pins = dict(zip(keys, (each.bid for each in self.bids.pins), strict=True))
        return Bids(per=self.bids.per, of_pins=of_pins, otherwise=self.bids.default)


def _column(recommender: Recommender, field: str, reference: str) -> str:
    known = recommender.features["pin"].categories
    if reference not in known:
        raise RequestError(
            ErrorDetail(
                code="unknown_feature",
                message=f"{field} must be a text or integer of Pins that the release reads (got {reference!r})",
                field=field,
                value=reference,
                remedy=f"use one of {', '.join(known[:50])}",
            )
        )
    view, _, name = reference.partition(":")
    return feature_reference(view, name)
