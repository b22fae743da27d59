"""Commands that write rows and keep them in order: created by the server at once, or compared by a script.

`HSETEX … FNX` (Valkey 9, Redis 8) sets fields only where none of them exists, in one step, and costs the server half of
what the script does. So rows are created first, as long as most are new; the script has those that are not, all rows of
servers that don't know the command, and those of users who may not run it.

Dims: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from feature_repo.stores.packed.rows import RowChunk
from feature_repo.stores.packed.times import encode_times
from feature_repo.stores.redis.pipeline import Client, bulk, command, exchange
from feature_repo.stores.redis.reading import field_names, time_field
from feature_repo.stores.redis.script import DIGEST, ORDER_SAFE_WRITE

_LOAD_SCRIPT = command(b"SCRIPT", b"LOAD", ORDER_SAFE_WRITE)
_WRITTEN = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Commands:
    """N rows, ready to be sent."""

    chunk: RowChunk
    commands: list[bytes]
    """One per row."""
    creates: bool
    """Whether they write only what is new."""


class RowWriter:
    """Writes rows of one view.

    Args:
        stored_name: Under which the view is stored.
        key_ttl_seconds: After which an entity that was written expires, or 0.
        creates: Whether rows may be new; worth an attempt for many rows, not for a push of a few.
    """

    def __init__(self, client: Client, stored_name: str, *, key_ttl_seconds: int, creates: bool) -> None:
        self._client, self._name, self._seconds_to_live = client, stored_name, key_ttl_seconds
        # The expiry of a key cannot be set in the same step.
        self._creates = creates and not key_ttl_seconds

    def ready(self, chunks: Iterable[RowChunk]) -> Iterator[Commands]:
        """Rows with their commands, chunk by chunk."""
        for chunk in chunks:
            creates = self._creates
            commands = self._create(chunk) if creates else self._compare(chunk)
            yield Commands(chunk=chunk, commands=commands, creates=creates)

    def write(self, ready: Commands) -> list[Any]:
        """Send rows; the reply to each is 1, 0 where the server holds a newer row, or an error.

        Raises:
            redis.exceptions.RedisError: As `pipeline.exchange`.
        """
        keys = ready.chunk.keys
        if not ready.creates:
            return exchange(self._client, keys, ready.commands, [_LOAD_SCRIPT], writes=True)
        replies = exchange(self._client, keys, ready.commands, writes=True)
        left = [place for place, reply in enumerate(replies) if reply != _WRITTEN]
        if 2 * len(left) > len(replies):
            self._creates = False
        rest = ready.chunk.take(np.array(left, np.int64))
        if left:
            compared = exchange(self._client, rest.keys, self._compare(rest), [_LOAD_SCRIPT], writes=True)
            for place, reply in zip(left, compared, strict=True):
                replies[place] = reply
        return replies

    def _create(self, chunk: RowChunk) -> list[bytes]:
        fields = 1 + len(chunk.names)
        options = bulk(b"FNX") + bulk(b"FIELDS") + bulk(b"%d" % fields) + time_field(self._name)
        times = map(bulk, encode_times(chunk.event_micros))
        return _commands([b"HSETEX"], chunk, 5 + 2 * fields, [repeat(options), times], self._name)

    def _compare(self, chunk: RowChunk) -> list[bytes]:
        """A call of the script per row."""
        times = map(bulk, encode_times(chunk.event_micros))
        micros = (bulk(b"%d" % moment) for moment in chunk.event_micros.tolist())
        expiry = bulk(b"%d" % self._seconds_to_live)
        words = [repeat(time_field(self._name)), times, micros, repeat(expiry)]
        return _commands([b"EVALSHA", DIGEST, b"1"], chunk, 8 + 2 * len(chunk.names), words, self._name)


def _commands(
    first: Sequence[bytes], chunk: RowChunk, num_words: int, words: Sequence[Iterable[bytes]], name: str
) -> list[bytes]:
    """Per row: the first words, its key, more words, then fields and values.

    Args:
        num_words: Of a command.
        words: Per row each, whole bulk strings.
        name: Under which the view is stored.
    """
    head = b"*%d\r\n" % num_words + b"".join(map(bulk, first))
    parts: list[Iterable[bytes]] = [repeat(head), map(bulk, chunk.keys), *words]
    for field, values in zip(field_names(name, chunk.names), chunk.values, strict=True):
        headers = {length: field + b"$%d\r\n" % length for length in set(map(len, values))}
        parts += [map(headers.__getitem__, map(len, values)), values, repeat(b"\r\n")]
    return [b"".join(row) for row in zip(*parts, strict=False)]
