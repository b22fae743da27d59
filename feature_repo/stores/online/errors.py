"""Errors of the packed online stores; each names the feature view, and the entity key or the server if it knows it."""

from __future__ import annotations


class PackedWriteError(ValueError):
    """Rows that must not be stored: nothing of them was written."""


class OnlineStoreUnavailableError(RuntimeError):
    """The store did not take or give everything; what it holds is whole rows, and trying again repairs the rest."""


class OnlineStoreTimeoutError(OnlineStoreUnavailableError):
    """The store did not answer in time."""
