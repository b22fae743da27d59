"""Why a push is refused; nothing of it was written."""

from __future__ import annotations


class PushError(ValueError):
    """A push that cannot be done as it was asked for."""


class TowersError(PushError):
    """A version has no towers that vectors may be computed with now."""


class NoInputsError(PushError):
    """Nothing is known of an entity, so that its vector would say nothing of it."""
