"""Pre-norm Transformer layers over tokens, and a sequence encoder that pools to a fixed number of tokens.

Source: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3; layer norm before each sublayer after
Xiong et al., "On Layer Normalization in the Transformer Architecture", arXiv:2002.04745; pooling by learned queries
after Lee et al., "Set Transformer", arXiv:1810.00825, section 3.2; a target as query after Zhou et al., "Deep Interest
Network", arXiv:1706.06978, section 4.3.
Dims: B batch, L tokens or sequence length, T queries, D width of a token, H heads, E = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Sizes of one Transformer layer."""

    model_dim: int
    """Width of a token, D; a multiple of `num_heads`."""
    num_heads: int = 4
    """Attention heads, H."""
    hidden_dim: int = 64
    """Hidden width of the feed-forward sublayer."""
    dropout: float = 0.0
    """Share of elements dropped from each sublayer's output in training."""

    def __post_init__(self) -> None:
        for name in ("model_dim", "num_heads", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if self.model_dim % self.num_heads:
            raise ValueError(f"model_dim must be a multiple of num_heads={self.num_heads} (got {self.model_dim})")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1) (got {self.dropout})")


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention whose rows without any present key answer zero, never NaN."""

    def __init__(self, *, model_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(model_dim, model_dim)
        self.key_value = nn.Linear(model_dim, 2 * model_dim)
        self.output = nn.Linear(model_dim, model_dim)

    def forward(
        self,
        queries: Float[Tensor, "B T D"],
        tokens: Float[Tensor, "B L D"],
        present: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Mixture of the present tokens for each query; without `present` all of them are."""
        key_BLD, value_BLD = self.key_value(tokens).chunk(2, dim=-1)
        query_BHTE, key_BHLE, value_BHLE = map(self._split, (self.query(queries), key_BLD, value_BLD))
        if present is None:
            mixed_BHTE = F.scaled_dot_product_attention(query_BHTE, key_BHLE, value_BHLE)
            return self._join(mixed_BHTE)
        any_present = present.any(dim=1, keepdim=True)
        # A softmax over nothing is NaN, so an empty row looks at everything here and is zeroed below.
        visible_B11L = (present | ~any_present)[:, None, None, :]
        mixed_BHTE = F.scaled_dot_product_attention(query_BHTE, key_BHLE, value_BHLE, attn_mask=visible_B11L)
        return self._join(mixed_BHTE) * any_present[:, :, None].to(tokens.dtype)

    def pool(
        self, queries: Float[Tensor, "T D"], tokens: Float[Tensor, "B L D"], present: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B T D"]:
        """The same for queries that all rows share, which costs a third: no token needs a key or a value of its own.

        A score q·(K x + b) is (Kᵀ q)·x and a term that is the same for all tokens, which a softmax does not see; and a
        mixture of values V x + c, whose weights add up to 1, is V (mixture of x) + c.
        """
        heads, dim = self.num_heads, tokens.shape[2]
        key_HED, value_HED = self.key_value.weight.reshape(2, heads, dim // heads, dim).unbind()
        bias_HE = self.key_value.bias[dim:].reshape(heads, dim // heads)
        query_THE = self.query(queries).reshape(-1, heads, dim // heads)
        folded_THD = torch.einsum("the,hed->thd", query_THE, key_HED) * (dim // heads) ** -0.5
        scores_BXL = (tokens @ folded_THD.flatten(0, 1).T).transpose(1, 2)
        any_present = present.any(dim=1, keepdim=True)
        visible_B1L = (present | ~any_present)[:, None, :]
        shares_BXL = scores_BXL.masked_fill(~visible_B1L, -torch.inf).softmax(dim=-1)
        mixed_BTHD = (shares_BXL @ tokens).reshape(tokens.shape[0], queries.shape[0], heads, dim)
        joined_BTD = (torch.einsum("bthd,hed->bthe", mixed_BTHD, value_HED) + bias_HE).flatten(2)
        pooled: Tensor = self.output(joined_BTD)
        return pooled * any_present[:, :, None].to(tokens.dtype)

    def _split(self, tokens: Tensor) -> Tensor:
        head_dim = tokens.shape[2] // self.num_heads
        return tokens.reshape(tokens.shape[0], tokens.shape[1], self.num_heads, head_dim).transpose(1, 2)

    def _join(self, heads: Tensor) -> Tensor:
        joined: Tensor = self.output(heads.transpose(1, 2).flatten(2))
        return joined


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each normalised before and added to its input."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.model_dim)
        self.attention = MultiHeadAttention(model_dim=config.model_dim, num_heads=config.num_heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.model_dim),
            nn.Linear(config.model_dim, config.hidden_dim),
            nn.ReLU(),
            nn.Linear(config.hidden_dim, config.model_dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, tokens: Float[Tensor, "B L D"], present: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """Tokens that have seen the present ones; absent tokens influence none and come out as zero."""
        normed = self.attention_norm(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed, present))
        tokens = tokens + self.dropout(self.feed_forward(tokens))
        return tokens if present is None else tokens * present[:, :, None].to(tokens.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceEncoderConfig:
    """Depth of a sequence encoder and how it pools."""

    layer: TransformerConfig
    """Each Transformer layer; its `model_dim` is the width of the sequence."""
    num_layers: int = 1
    """Transformer layers before pooling; 0 pools the sequence as it comes."""
    num_outputs: int = 1
    """Pooled tokens, T."""
    pooling: Literal["queries", "target"] = "queries"
    """Pool with learned queries, or with learned queries shifted by a projection of a target."""

    def __post_init__(self) -> None:
        if self.num_layers < 0:
            raise ValueError(f"num_layers must be at least 0 (got {self.num_layers})")
        if self.num_outputs < 1:
            raise ValueError(f"num_outputs must be at least 1 (got {self.num_outputs})")


class SequenceEncoder(nn.Module):
    """A padded sequence to T tokens; an empty sequence gives T learned tokens of its own."""

    def __init__(self, config: SequenceEncoderConfig) -> None:
        super().__init__()
        dim = config.layer.model_dim
        self.config = config
        self.layers = nn.ModuleList(TransformerLayer(config.layer) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.randn(config.num_outputs, dim) * dim**-0.5)
        self.empty = nn.Parameter(torch.randn(config.num_outputs, dim) * dim**-0.5)
        self.target = nn.Linear(dim, dim) if config.pooling == "target" else None
        self.pool = MultiHeadAttention(model_dim=dim, num_heads=config.layer.num_heads)

    def forward(
        self,
        sequence: Float[Tensor, "B L D"],
        present: Bool[Tensor, "B L"],
        target: Float[Tensor, "B D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Pooled tokens.

        Raises:
            ValueError: A target was given to a config that pools with `queries`, or none to one that needs it.
        """
        for layer in self.layers:
            sequence = layer(sequence, present)
        pooled_BTD = self._pooled(self.norm(sequence), present, target)
        return torch.where(present.any(dim=1)[:, None, None], pooled_BTD, self.empty)

    def _pooled(self, sequence: Tensor, present: Tensor, target: Tensor | None) -> Tensor:
        if (target is None) != (self.target is None):
            got = "none" if target is None else f"one of shape {tuple(target.shape)}"
            raise ValueError(
                f"a target must come exactly with pooling='target' (got {got} with {self.config.pooling!r})"
            )
        if self.target is None:
            return self.pool.pool(self.queries, sequence, present)
        pooled: Tensor = self.pool(self.queries + self.target(target)[:, None, :], sequence, present)
        return pooled
