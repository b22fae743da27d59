"""Built-in datasets by name."""

from __future__ import annotations

from trainers.data.adapters.adapter import Adapter, AdapterOptions
from trainers.data.adapters.complete_journey import CompleteJourney
from trainers.data.adapters.kuairand import KuaiRand
from trainers.data.adapters.movielens_100k import MovieLens100K
from trainers.data.adapters.synthetic import Synthetic

__all__ = ["ADAPTERS", "Adapter", "AdapterOptions", "get_adapter"]

_BUILT_IN: tuple[Adapter, ...] = (CompleteJourney(), KuaiRand(), MovieLens100K(), Synthetic())

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in _BUILT_IN}
"""Built-in datasets by name, the default of the demo first."""


def get_adapter(name: str) -> Adapter:
    """The built-in dataset of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in ADAPTERS:
        raise ValueError(
            f"dataset must be one of {', '.join(ADAPTERS)} (got {name!r}); "
            "for your own files give a YAML, see docs/own_data.md"
        )
    return ADAPTERS[name]
