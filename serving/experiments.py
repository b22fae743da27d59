"""Which arm of the running split a user is in: the same at every request and in every process, without any memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from feature_repo.versions import Split

if TYPE_CHECKING:
    from serving.recommender import Recommender

CONTROL: Final = "control"
"""Everyone who is in no other arm; answered by the live release."""
TREATMENT: Final = "treatment"
"""Answered by the split's release."""
HOLDOUT: Final = "holdout"
"""Answered by the live release, and kept out of the comparison."""
_BUCKETS = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """A split and the arm of one user in it."""

    split: str
    arm: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningSplit:
    """A split as this process can answer in it."""

    declared: Split
    recommender: Recommender | None
    """Of the treatment; none where its release could not be loaded, and the live one answers in its stead."""


def assigned(split: Split, user_id: int) -> Assignment:
    """The arm of a user.

    The treatment grows and shrinks from one end of the users' order and the holdout from the other, so that a change of
    a share moves no user from the one to the other, and only as many as it must.
    """
    place = user_place(split.salt, user_id)
    if place < split.share:
        return Assignment(split=split.name, arm=TREATMENT)
    return Assignment(split=split.name, arm=HOLDOUT if place >= 1.0 - split.holdout else CONTROL)


def user_place(salt: str, user_id: int) -> float:
    """Where a user stands in the order that a salt puts all users in, at least 0 and below 1.

    Another salt is another order, so that who was in an arm of one split is as likely as anyone in that of another.
    """
    digest = hashlib.blake2b(str(user_id).encode(), key=salt.encode(), digest_size=8).digest()
    # A quotient that rounds up to 1 would be in no arm.
    return min(int.from_bytes(digest, "big") / _BUCKETS, 1.0 - 2.0**-53)
