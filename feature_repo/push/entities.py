"""Which entities a push may name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from feature_repo.contract import ENTITIES, join_key
from feature_repo.push.errors import PushError

MAX_IDS = 10_000
"""Entities of one push; more are a day's work."""
LARGEST_ID = 2**63 - 1


def check_entities(entity: str, ids: Sequence[int]) -> None:
    """Pass when the ids can be those of entities.

    Raises:
        PushError: They cannot.
    """
    if entity not in ENTITIES:
        raise PushError(f"entity must be one of {', '.join(ENTITIES)} (got {entity!r})")
    if not 1 <= len(ids) <= MAX_IDS:
        raise PushError(f"a push must be of 1 to {MAX_IDS} {entity}s (got {len(ids)}); divide it")
    if wrong := [each for each in ids if not is_entity_key(each)]:
        raise PushError(f"{join_key(entity)} must be an integer of 0 to {LARGEST_ID} (got {wrong[0]!r}); correct it")
    if len(set(ids)) < len(ids):
        twice = next(key for key, times in Counter(ids).items() if times > 1)
        raise PushError(f"each {entity} must be pushed once (got {join_key(entity)} {twice} twice)")


def is_entity_key(value: Any) -> bool:
    """Whether a value can be an entity key."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID
