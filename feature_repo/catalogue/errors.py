"""Why the catalogue refuses a change."""

from __future__ import annotations

from collections.abc import Sequence

from feature_repo.catalogue.records import Consumer, Transition


class CatalogueError(ValueError):
    """A change that the catalogue refuses; nothing of it was done."""


class UnknownSubjectError(CatalogueError):
    """No such embedding version or release."""


class WrongStateError(CatalogueError):
    """The subject is not in the state that the change needs; another operator may have been first."""

    def __init__(self, message: str, last: Transition | None = None) -> None:
        super().__init__(message)
        self.last = last
        """The transition that brought the subject where it is."""


class ReleaseDisagreesError(CatalogueError):
    """A release whose embedding versions are not the catalogue's."""


class InUseError(CatalogueError):
    """Something still reads what is to be retired or pruned."""

    def __init__(self, message: str, consumers: Sequence[Consumer] = ()) -> None:
        super().__init__(message)
        self.consumers = tuple(consumers)
        """Everything that reads it."""


class CatalogueUnavailableError(CatalogueError):
    """The catalogue's database cannot be read or written now."""
