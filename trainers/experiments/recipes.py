"""Sizes of the experiments, as named recipes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainers.upstream import recipes as upstream
from trainers.upstream.recipes import UpstreamRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentRecipe:
    """What the experiments compute; `upgrade` and `staleness` look at the run's own version, at the run's own sizes."""

    small: UpstreamRecipe
    """Upstream model of `aggregation`, which trains one from scratch for every day."""
    history_share: float = 1.0
    """Share of the users whose long histories the models of `aggregation` are pre-trained on."""
    weights: tuple[float, ...] = (0.2, 0.5, 0.8)
    """Weights w of the past in the moving averages that are compared."""
    max_age_days: int = 14
    """Oldest embedding of `staleness`."""
    compatibility_weight: float = 1.0
    """Weight of the loss that makes a version compatible with the one before."""
    past_days: int = 7
    """Days before today whose vectors a consumer reads as a sequence."""
    cross_days: int = 7
    """Days whose rows make an entity's cross representation."""
    min_surface_rows: int = 500
    """Test rows of a surface below which no team of its own is judged on it."""
    ablated_layers: int = 6
    """Pairs of DHEN modules that `ablation` tries."""

    def __post_init__(self) -> None:
        if not 0.0 < self.history_share <= 1.0:
            raise ValueError(f"history_share must be above 0 and at most 1 (got {self.history_share})")


def default() -> ExperimentRecipe:
    """Minutes to an hour on two cores with a few hundred thousand impressions."""
    small = replace(
        upstream.default(),
        token_dim=16,
        hidden_tokens=4,
        tower_layers=(("masknet", "mlp"),),
        interaction_layers=(("masknet", "mlp"),),
    )
    return ExperimentRecipe(small=small, history_share=0.25)


def tiny() -> ExperimentRecipe:
    """For tests."""
    return ExperimentRecipe(
        small=upstream.tiny(),
        weights=(0.8,),
        max_age_days=3,
        past_days=2,
        cross_days=2,
        min_surface_rows=50,
        ablated_layers=1,
    )


def of_run(name: str) -> ExperimentRecipe:
    """The recipe that suits a run of that recipe."""
    return tiny() if name == "tiny" else default()
