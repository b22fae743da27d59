"""Long histories as a walk takes them, or a share of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainers.data.history_rows import HistoryReader
from trainers.upstream.trainer import UpstreamExamples


class HistoryShare:
    """The first chunks of a history reader, up to a share of its rows; iterable again and again."""

    def __init__(self, reader: HistoryReader, share: float) -> None:
        self._reader, self.num_rows = reader, int(reader.num_rows * share)

    def __iter__(self) -> Iterator[UpstreamExamples]:
        """Chunks of whole users but for the last one."""
        left = self.num_rows
        for chunk in self._reader:
            rows = np.arange(min(len(chunk.user_ids), left))
            if len(rows) == 0:
                return
            left -= len(rows)
            yield UpstreamExamples(
                examples=chunk.examples.take(rows), user_ids=chunk.user_ids[rows], pin_ids=chunk.pin_ids[rows]
            )
