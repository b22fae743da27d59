"""A trained ranker as it serves: what user and context decide is computed once per request, not once per candidate.

A linear layer over a concatenation is a sum of products with its parts, so of a first layer over user, Pin and context
only the Pin's product takes a row per candidate. The layer norm before such a layer is a shift and a scale of the
product. Weights are those of the trained ranker, and so is every logit, up to the order of additions.
Dims: R requests, B candidates, S width of what a request decides, P width of what a candidate decides, K = S + P, D
width of a token, H width of an output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from feature_repo.encoding import REQUEST_ROW
from trainers.ranking.model import MIXED_TOKENS, CrossBackbone, DhenBackbone, Each, Ranker


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Flattened tokens, those that a request decides with a row for each request."""

    tokens: tuple[tuple[Tensor, bool], ...]
    """Tokens in the order in which the ranker was trained, and whether a request alone decides them."""
    each: Each
    """Brings rows of requests to rows of candidates."""

    def of_request(self) -> Float[Tensor, "R S"]:
        """What a request decides."""
        return torch.cat([values for values, once in self.tokens if once], dim=1)

    def of_candidate(self) -> Float[Tensor, "B P"]:
        """What a candidate decides, or both."""
        return torch.cat([values for values, once in self.tokens if not once], dim=1)

    def joined(self) -> Float[Tensor, "B T"]:
        """All tokens of each candidate."""
        return torch.cat([self.each(values) if once else values for values, once in self.tokens], dim=1)


class SplitLinear(nn.Module):
    """A linear layer over K columns, of which those of the request come with a row per request."""

    request: Tensor
    candidate: Tensor
    bias: Tensor

    def __init__(self, weight: Float[Tensor, "H K"], bias: Float[Tensor, "H"], of_request: Bool[Tensor, "K"]) -> None:
        super().__init__()
        self.register_buffer("request", weight[:, of_request].t().contiguous())
        self.register_buffer("candidate", weight[:, ~of_request].t().contiguous())
        self.register_buffer("bias", bias.clone())

    def forward(
        self, request: Float[Tensor, "R S"], candidate: Float[Tensor, "B P"], each: Each
    ) -> Float[Tensor, "B H"]:
        """The layer's output for each candidate."""
        return torch.addmm(each(torch.addmm(self.bias, request, self.request)), candidate, self.candidate)


class CrossPerRequest(nn.Module):
    """`CrossBackbone` whose first layers, that of the crosses and that of the MLP, are one split product."""

    gain: Tensor
    shift: Tensor

    def __init__(self, backbone: CrossBackbone, of_request: Bool[Tensor, "K"]) -> None:
        super().__init__()
        self.backbone = backbone
        first, self.expansion = _first_and_rest(backbone.cross.layers[0])
        deep, _ = _first_and_rest(backbone.deep)
        self.widths = (first.out_features, deep.out_features)
        weight = torch.cat([first.weight, deep.weight])
        bias = torch.cat([torch.zeros(first.out_features) if first.bias is None else first.bias, deep.bias])
        scaled = weight * backbone.norm.weight
        self.first = SplitLinear(scaled, torch.zeros_like(bias), of_request)
        self.register_buffer("gain", scaled.sum(dim=1))
        self.register_buffer("shift", weight @ backbone.norm.bias + bias)

    def forward(self, parts: Parts, dots: Float[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        """Crossed features."""
        norm = self.backbone.norm
        whole = torch.cat([parts.joined(), dots], dim=1)
        flat, mean, scale = torch.native_layer_norm(whole, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        raw = self.first(parts.of_request(), torch.cat([parts.of_candidate(), dots], dim=1), parts.each)
        low, deep = (scale * (raw - mean * self.gain) + self.shift).split(self.widths, dim=1)
        crossed = flat * self.expansion(low) + flat
        for layer in self.backbone.cross.layers[1:]:
            crossed = flat * layer(crossed) + crossed
        return torch.relu(self.backbone.output(torch.cat([crossed, torch.relu(deep)], dim=1)))


def _first_and_rest(layer: nn.Module) -> tuple[nn.Linear, nn.Module]:
    """The linear layer that reads the input, and what follows; a matrix of low rank is two layers."""
    first, rest = (layer[0], layer[1]) if isinstance(layer, nn.Sequential) else (layer, nn.Identity())
    assert isinstance(first, nn.Linear)
    return first, rest


class DhenPerRequest(nn.Module):
    """`DhenBackbone` whose mixing of the tokens is a split product."""

    def __init__(self, backbone: DhenBackbone, of_request: Bool[Tensor, "K"]) -> None:
        super().__init__()
        self.backbone = backbone
        mix = backbone.mix
        self.mix = SplitLinear(mix.weight, mix.bias, of_request[: mix.in_features])

    def forward(self, parts: Parts, dots: Float[Tensor, "B P"]) -> Float[Tensor, "B H"]:
        """Crossed features."""
        mixed = self.mix(parts.of_request(), parts.of_candidate(), parts.each)
        mixed = self.backbone.dhen(mixed.unflatten(1, (MIXED_TOKENS, -1))).flatten(1)
        return torch.relu(self.backbone.output(torch.cat([mixed, dots], dim=1)))


class PerRequestRanker(nn.Module):
    """The logits of a trained ranker for candidates of any number of requests.

    Args:
        ranker: In evaluation mode; it is read, and changes of its weights are not followed.
    """

    @torch.no_grad()
    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker
        of_request = _of_request(ranker)
        backbone = ranker.backbone
        self.backbone: nn.Module = (
            CrossPerRequest(backbone, of_request)
            if isinstance(backbone, CrossBackbone)
            else DhenPerRequest(backbone, of_request)
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logit [B] of each task.

        Args:
            inputs: As the ranker's, of user and context with a row per request, and `REQUEST_ROW` [B].
        """
        ranker, each = self.ranker, partial(torch.index_select, dim=0, index=inputs[REQUEST_ROW])
        tokens = ranker.parts(inputs, each)
        once = [of_request for _, of_request in ranker.config.layout]
        flat = tuple((values.flatten(1), of_request) for values, of_request in zip(tokens, once, strict=True))
        parts = Parts(tokens=flat, each=each)
        features = self.backbone(parts, ranker.dots(inputs, parts.of_candidate(), each))
        logits: dict[str, Tensor] = ranker.heads(ranker.mmoe(features))
        return logits


def _of_request(ranker: Ranker) -> Bool[Tensor, "K"]:
    """Which columns of the concatenation, tokens and then inner products, a request alone decides."""
    config = ranker.config
    dim = config.user.fields.field_dim
    widths = [count * dim for count, _ in config.layout] + [2 * len(config.vector_pairs)]
    once = [of_request for _, of_request in config.layout] + [False]
    return torch.tensor(once).repeat_interleave(torch.tensor(widths))
