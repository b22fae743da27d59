"""Adam for models that hold large id tables: each step touches only the table rows of its batch.

A dense gradient of a table with a million rows is a million rows of zeros, filled, clipped and applied at every step.
Tables made with `sparse=True` get row-wise gradients instead; their moments decay only when a row is seen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class MixedAdam:
    """AdamW for dense parameters, SparseAdam without weight decay for the weights of sparse embedding tables."""

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float) -> None:
        tables = [each.weight for each in model.modules() if isinstance(each, nn.Embedding) and each.sparse]
        known = {id(table) for table in tables}
        self._dense = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self._dense, lr=lr, weight_decay=weight_decay, fused=True)
        ]
        if tables:
            self._parts.append(torch.optim.SparseAdam(tables, lr=lr))

    def set_lr(self, lr: float) -> None:
        """Learning rate of the steps from here on."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, max_norm: float) -> None:
        """Apply the gradients; those of the dense parameters are cut to `max_norm` together."""
        nn.utils.clip_grad_norm_(self._dense, max_norm)
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """State of all parameters under one numbering, as an optimiser of torch gives it."""
        states = [part.state_dict() for part in self._parts]
        first = self._offsets()
        return {
            "state": {
                offset + index: values
                for offset, state in zip(first, states, strict=True)
                for index, values in state["state"].items()
            },
            "param_groups": [group for state in states for group in state["param_groups"]],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        for part, offset, group in zip(self._parts, self._offsets(), state["param_groups"], strict=True):
            count = len(group["params"])
            own = {i - offset: _restored(v) for i, v in state["state"].items() if offset <= i < offset + count}
            part.load_state_dict({"state": own, "param_groups": [group]})

    def _offsets(self) -> list[int]:
        return [0, len(self._dense)][: len(self._parts)]


def _restored(values: dict[str, Any]) -> dict[str, Any]:
    """SparseAdam counts its steps in a plain number, which a checkpoint keeps as a tensor of integers."""
    step = values["step"]
    return values if not torch.is_tensor(step) or step.is_floating_point() else {**values, "step": int(step)}
