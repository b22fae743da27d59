"""Why the catalogue refuses a change."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from feature_repo.catalogue.records import Consumer, Transition

SHOWN = 5
"""Names that an error lists."""


class CatalogueError(ValueError):
    """A change that the catalogue refuses; nothing of it was done."""


class UnknownSubjectError(CatalogueError):
    """No such embedding version or release."""

    def __init__(self, kind: str, got: str, known: Sequence[str]) -> None:
        if known:
            super().__init__(f"{kind} must be one of {_nearest(got, known)} (got {got!r})")
        else:
            super().__init__(f"{kind} must exist (got {got!r}, and there is none yet); make one, or correct --run")


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


def _nearest(got: str, known: Sequence[str]) -> str:
    """What someone may have meant: everything where there is little, else the nearest names, else the newest ones."""
    if len(known) <= SHOWN:
        return ", ".join(known)
    shown = get_close_matches(got, known, n=SHOWN) or list(known[-SHOWN:])
    return f"{', '.join(shown)} and {len(known) - len(shown)} others"
