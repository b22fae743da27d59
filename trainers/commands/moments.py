"""Moments as a person writes them on the command line."""

from __future__ import annotations

from datetime import UTC, datetime


def moment_option(name: str, text: str | None) -> datetime | None:
    """A date or a moment, UTC where no zone is given; none where the option was not given.

    Raises:
        ValueError: It is neither; the text names the option.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be a date or a moment like 2026-01-10T06:00 (got {text!r})") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
