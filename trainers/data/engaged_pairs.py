"""Engaged (user, Pin) pairs: what retrieval learns from.

Dims: N pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from feast import FeatureStore

from feature_repo.encoding import InputSpec
from trainers.data.examples import Examples, Rows
from trainers.data.long_histories import history_inputs
from trainers.data.ranking_data import RankingData
from trainers.data.retrieval_data import with_pin_bucket

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Engaged (user, Pin) pairs."""

    examples: Examples
    """Inputs of both sides."""
    user_ids: Keys
    pin_ids: Keys
    event_micros: Keys
    """Microseconds since the epoch of each engagement's impression [N]."""

    def before(self, moment: datetime) -> Pairs:
        """The pairs from before a moment."""
        rows = np.flatnonzero(self.event_micros < round(moment.timestamp() * 1_000_000))
        return Pairs(
            examples=self.examples.take(rows),
            user_ids=self.user_ids[rows],
            pin_ids=self.pin_ids[rows],
            event_micros=self.event_micros[rows],
        )

    def with_examples(self, examples: Examples) -> Pairs:
        """The same pairs with other inputs."""
        return Pairs(examples=examples, user_ids=self.user_ids, pin_ids=self.pin_ids, event_micros=self.event_micros)


def engaged_pairs(data: RankingData, rows: Rows, label_column: int, store: FeatureStore, user: InputSpec) -> Pairs:
    """The engaged ones of these rows, with every input of retrieval as it was at the row's moment.

    Args:
        label_column: Position of the label that makes a pair.
        user: Inputs of the user side, those of `data` and maybe long histories.
    """
    engaged = rows[data.examples.labels[rows, label_column] == 1.0]
    user_ids, pin_ids, moments = data.user_ids[engaged], data.pin_ids[engaged], data.event_micros[engaged]
    inputs = history_inputs(store, user, user_ids, moments)
    examples = with_pin_bucket(data.examples.take(engaged).with_inputs(inputs), pin_ids, data.user)
    return Pairs(examples=examples, user_ids=user_ids, pin_ids=pin_ids, event_micros=moments)
