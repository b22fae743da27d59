"""Named recipes of a whole run: what features are computed and how large every model is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from trainers.ranking import recipes as ranking
from trainers.retrieval import recipes as retrieval
from trainers.upstream import gate_recipes
from trainers.upstream import recipes as upstream
from trainers.upstream.gate_recipes import GateRecipe
from trainers.upstream.recipes import LATER


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecipe:
    """Everything that sizes a run, whatever the dataset."""

    upstream: upstream.UpstreamRecipe
    """Upstream models, the same sizes for all."""
    ctr: ranking.RankingRecipe
    """CTR ranker."""
    cvr: ranking.RankingRecipe
    """CVR ranker."""
    retrieval: retrieval.RetrievalRecipe
    """Two-tower retrieval."""
    ctr_tried: tuple[ranking.RankingRecipe, ...] = ()
    """Other sizes of the CTR ranker to choose from on the validation days, in every arm."""
    cvr_tried: tuple[ranking.RankingRecipe, ...] = ()
    """The same of the CVR ranker."""
    boosted: ranking.BoostedRecipe | None = None
    """LightGBM rankers beside both; none to leave them out."""
    windows_days: tuple[int, ...] = (1, 7, 28)
    """Windows of the activity counts."""
    sequence_length: int = 20
    """Engaged Pins that the user's sequence keeps."""
    activity_ttl_hours: int = 72
    """TTL of the activity views."""
    bootstrap_samples: int = 500
    """Resamples behind every interval."""
    gates: GateRecipe = field(default_factory=gate_recipes.default)
    """Bounds that a day's embeddings must keep to become visible."""
    domains: Literal["separate", "unified", "compared"] = field(default="separate", metadata=LATER)
    """Upstream models: one for each domain, one for both domains together, or all three to compare them."""

    def fingerprint_text(self, *parts: str) -> str:
        """Canonical text, equal exactly when two recipes are; of some fields alone when they are named."""
        fields = dataclasses.asdict(self)
        chosen = {name: fields[name] for name in parts or fields}
        for name in _unset(self) & set(chosen):
            del chosen[name]
        for name in _unset(self.upstream):
            del fields["upstream"][name]
        return json.dumps(chosen, sort_keys=True)


def _unset(recipe: RunRecipe | upstream.UpstreamRecipe) -> set[str]:
    """Fields of a recipe that came later and are at their default."""
    return {
        each.name
        for each in dataclasses.fields(recipe)
        if each.metadata == LATER and getattr(recipe, each.name) == each.default
    }


def default() -> RunRecipe:
    """Fits two cores and 4 GB."""
    return RunRecipe(upstream=upstream.default(), ctr=ranking.ctr(), cvr=ranking.cvr(), retrieval=retrieval.default())


def compared() -> RunRecipe:
    """The default with what a sceptic compares its models to, for published figures; `evaluate` takes longer."""
    recipe = default()
    return replace(
        recipe,
        ctr_tried=ranking.tried(recipe.ctr),
        cvr_tried=ranking.tried(recipe.cvr),
        boosted=ranking.boosted(),
        retrieval=retrieval.compared(recipe.retrieval),
    )


def unified() -> RunRecipe:
    """The default with one upstream model of both domains, whose embeddings every consumer reads."""
    return replace(default(), domains="unified")


def domains() -> RunRecipe:
    """The default with the unified upstream model beside those of each domain, in arms of its own."""
    return replace(default(), domains="compared")


def tiny() -> RunRecipe:
    """For tests and first looks: a whole run in seconds on a few thousand rows."""
    recipe = default()
    return RunRecipe(
        upstream=upstream.tiny(),
        ctr=ranking.tiny(recipe.ctr),
        cvr=ranking.tiny(recipe.cvr),
        retrieval=retrieval.tiny(recipe.retrieval),
        boosted=ranking.tiny_boosted(),
        windows_days=(1, 7),
        sequence_length=5,
        bootstrap_samples=50,
        gates=gate_recipes.tiny(),
    )


RECIPES: dict[str, Callable[[], RunRecipe]] = {
    "default": default,
    "compared": compared,
    "domains": domains,
    "unified": unified,
    "tiny": tiny,
}


def get_recipe(name: str) -> RunRecipe:
    """The recipe of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)} (got {name!r}); give --recipe default")
    return RECIPES[name]()
