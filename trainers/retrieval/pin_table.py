"""A table of Pins in which a user is the Pins met before.

Without long histories a Pin has one vector, as a candidate and as something met, and all Pins count alike: a few ten
thousand pairs learn no more. With them it has two, since what is looked for after a Pin is not what it is found by, and
each Pin counts as much as its place and what was done with it say.
Source: users as the sum of their Pins over the root of their number after Koren, "Factorization Meets the
Neighborhood", KDD 2008.
Dims: B batch, T width of a vector, L longest sequence, S sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainers.modules.side import SequenceInputs

INIT_STD = 0.05
"""Standard deviation of a fresh table of Pins."""


class _Weights(nn.Module):
    """How much each Pin of one sequence counts: by its place from the newest, and by what was done with it."""

    action_values: Tensor

    def __init__(self, sequence: SequenceInputs) -> None:
        super().__init__()
        num_actions = sequence.num_actions if sequence.actions else 0
        self.places = nn.Parameter(torch.zeros(sequence.length))
        self.actions = nn.Parameter(torch.zeros(num_actions))
        self.register_buffer("action_values", 2 ** torch.arange(num_actions), persistent=False)

    def forward(self, pins: Int[Tensor, "B L"], actions: Int[Tensor, "B L"] | None) -> Float[Tensor, "B L"]:
        """Positive weights, 0 for padding."""
        present = pins > 0
        from_newest = (present.flip(1).cumsum(dim=1).flip(1) - 1).clamp(min=0)
        logs = self.places[from_newest]
        if actions is not None:
            # ONNX has no signed bit shift: divide instead.
            bits = actions[:, :, None].div(self.action_values, rounding_mode="floor") % 2
            logs = logs + bits.to(logs.dtype) @ self.actions
        return logs.exp() * present.to(logs.dtype)


class PinTable(nn.Module):
    """A vector for every Pin, and for a user the scaled sum of those engaged with last."""

    def __init__(self, buckets: int, dim: int, sequences: Sequence[SequenceInputs]) -> None:
        super().__init__()
        self.sequences = tuple(sequences)
        self.rows = nn.Embedding(buckets, dim)
        nn.init.normal_(self.rows.weight, std=INIT_STD)
        self.weight = nn.Parameter(torch.tensor(0.1))

    def scalars(self) -> list[nn.Parameter]:
        """Weights of which there are few."""
        return [self.weight]

    def queries(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B T"]:
        """Sum of the Pins present over the root of their number; 0 for a user without any."""
        pins = torch.cat([inputs[sequence.pins] for sequence in self.sequences], dim=1)
        present = (pins > 0).to(self.rows.weight.dtype)
        total = (self.rows(pins) * present[:, :, None]).sum(dim=1)
        scaled: Tensor = self.weight * total / present.sum(dim=1, keepdim=True).clamp(min=1.0).sqrt()
        return scaled


class RememberingPinTable(PinTable):
    """Vectors of all Pins as candidates, and of users as what they remember."""

    def __init__(self, buckets: int, dim: int, sequences: Sequence[SequenceInputs], dropout: float = 0.0) -> None:
        """
        Args:
            dropout: Share of the remembered Pins that training hides.
        """
        super().__init__(buckets, dim, sequences)
        self.dropout = dropout
        self.remembered = nn.Embedding(buckets, dim)
        nn.init.normal_(self.remembered.weight, std=INIT_STD)
        self.anyone = nn.Parameter(torch.zeros(dim))
        self.counted = nn.ModuleList(_Weights(sequence) for sequence in self.sequences)

    def scalars(self) -> list[nn.Parameter]:
        """Weights of which there are few."""
        return [self.weight, *self.counted.parameters()]

    def queries(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B T"]:
        """Weighted sum of the Pins over the length of the weights, plus what holds for anyone."""
        weights = [self._weights(i, inputs) for i in range(len(self.sequences))]
        pins = torch.cat([inputs[sequence.pins] for sequence in self.sequences], dim=1)
        counted = torch.cat(weights, dim=1)
        if self.training and self.dropout:
            counted = counted * (torch.rand_like(counted) >= self.dropout)
        total = torch.bmm(counted[:, None, :], self.remembered(pins))[:, 0]
        length = (counted.square().sum(dim=1, keepdim=True) + 0.5).sqrt()
        scaled: Tensor = self.weight * (total / length + self.anyone)
        return scaled

    def _weights(self, index: int, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B L"]:
        sequence = self.sequences[index]
        actions = inputs[sequence.actions].long() if sequence.actions else None
        found: Tensor = self.counted[index](inputs[sequence.pins], actions)
        return found
