"""Words by which people call columns and files. A guess from a name is shown as one; values decide where they can."""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER = _set("user member customer visitor client household account person buyer viewer reader shopper profile uid")
PIN = _set(
    "pin item product video movie article creative ad content post song track sku doc document listing offer book news "
    "recipe"
)
IMPRESSION = _set("impression exposure event view log interaction rating click feedback session")
CONVERSION = _set(
    "conversion order ordered purchase purchased sale sold transaction redemption redeemed used bought booking booked "
    "checkout install signup"
)
CLICK = _set("click clicked open opened tap tapped watch watched view viewed play played visit visited")
SURFACE = _set("surface page tab placement spot slot channel section app screen location source feed place where zone")
POSITION = _set("position rank place")
PROPENSITY = _set("propensity")
OF_A_KEY = _set("feature age type group segment gender degree num count cnt affinity embedding cluster category range")
"""Words of what describes an entity; a column with one of them names none."""
RATING = _set("rating star score")
ACTION = _set("action event type feedback response outcome verb")
NO_ACTION = _set("none no nothing null view impression")
YES_NO = frozenset({("n", "y"), ("no", "yes"), ("f", "t")})
"""Pairs by which texts say no and yes, sorted."""
YES = frozenset({"y", "yes", "t"})
AMOUNT = _set("value amount revenue price total gmv paid worth spent dollars euros usd eur")
TITLE = _set("title name headline label caption description")
MOMENT = (
    "event_timestamp",
    "timestamp",
    "time",
    "ts",
    "datetime",
    "date",
    "shown",
    "occurred",
    "created",
    "at",
    "when",
)
"""The clearest first."""


def words(name: str) -> list[str]:
    """Words of a column or file name: `shownAt`, `shown_at` and `SHOWN-AT` alike."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return [word for word in re.split(r"[^a-z0-9]+", split) if word]


def named_like(name: str, known: frozenset[str]) -> bool:
    """Whether a name has one of the words, also as a plural or followed by `id`."""
    found = {form for word in words(name) for form in (word, word.removesuffix("s"), word.removesuffix("id"))}
    return not found.isdisjoint(known)
