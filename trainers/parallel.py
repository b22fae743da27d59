"""Data-parallel training: every process computes its share of each batch's rows, and all take the same step.

What the shares came to is gathered, so that each process computes the loss of the whole batch: in-batch negatives,
masked means and the logQ correction are those of one process. Gradients flow into a process's own share alone; summed
over the processes they are the batch's. Everything but the rows' own computation is repeated in each process.
Dims: B rows of a batch, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(hours=1)
"""How long a process waits for the others; that of one which died is noticed at once."""

Output = TypeVar("Output", bound=NamedTuple)


class PeerLostError(RuntimeError):
    """A process of the training ended before the others."""


class _Span(NamedTuple):
    """Rows of the batch under way that are this process's."""

    start: int
    stop: int
    total: int


_SPAN: ContextVar[_Span | None] = ContextVar("span", default=None)


class Team:
    """The processes of one training, seen from one of them."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.begun = False

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, num_rows: int) -> slice:
        """This process's rows of so many: neighbours, as many as every other process has or one more."""
        return slice(num_rows * self.rank // self.size, num_rows * (self.rank + 1) // self.size)

    @contextmanager
    def computing(self, num_rows: int) -> Iterator[slice]:
        """The share of a batch, while modules compute on it: they draw and count as if they had the whole batch."""
        own = self.share(num_rows)
        token = _SPAN.set(_Span(own.start, own.stop, num_rows))
        try:
            yield own
        finally:
            _SPAN.reset(token)

    def gathered(self, own: Tensor, num_rows: int) -> Tensor:
        """Rows [B, W] of all processes from this one's; gradients go to this one's alone.

        They are made larger by the number of processes, because `average_gradients` divides by it: what every process
        computes alike, such as a learned temperature, then comes out right as well.
        """
        if num_rows == 0:
            return own
        shares = [num_rows * (rank + 1) // self.size - num_rows * rank // self.size for rank in range(self.size)]
        padded = own.new_zeros((max(shares), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        everyone = [torch.empty_like(padded) for _ in shares]
        with _all_present():
            dist.all_gather(everyone, padded)
        if own.requires_grad:
            own = own * 1.0
            own.register_hook(lambda gradient: gradient * self.size)  # type: ignore[no-untyped-call]
        parts = [part[:count] for part, count in zip(everyone, shares, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def gathered_output(self, own: Output, num_rows: int) -> Output:
        """The same of a model's output: tensors [b, W], and dictionaries of tensors [b]."""
        columns = [each if isinstance(each, Tensor) else _stacked(each, own[0]) for each in own]
        widths = [each.shape[1] for each in columns]
        whole = torch.split(self.gathered(torch.cat(columns, dim=1), num_rows), widths, dim=1)
        fields = [
            part if isinstance(each, Tensor) else dict(zip(each, part.unbind(1), strict=True))
            for each, part in zip(own, whole, strict=True)
        ]
        return type(own)._make(fields)

    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by the mean over the processes; row-wise ones are put side by side."""
        dense = [each.grad for each in model.parameters() if each.grad is not None and not each.grad.is_sparse]
        flat = torch.cat([gradient.flatten() for gradient in dense])
        with _all_present():
            dist.all_reduce(flat)
        means = torch.split(flat / self.size, [each.numel() for each in dense])
        for gradient, mean in zip(dense, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        for parameter in model.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._rows_of_all(parameter.grad.coalesce())

    def _rows_of_all(self, own: Tensor) -> Tensor:
        """Rows of a sparse gradient of every process, each divided by their number."""
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _all_present():
            dist.all_gather(counts, torch.tensor([own.values().shape[0]]))
        longest = int(max(counts))
        indices = self._padded_rows(own.indices()[0], longest)
        values = self._padded_rows(own.values(), longest)
        kept = [slice(rank * longest, rank * longest + int(count)) for rank, count in enumerate(counts)]
        rows = torch.cat([indices[each] for each in kept])
        summands = torch.cat([values[each] for each in kept]) / self.size
        return torch.sparse_coo_tensor(rows[None], summands, own.shape, check_invariants=False)

    def _padded_rows(self, own: Tensor, longest: int) -> Tensor:
        padded = own.new_zeros((longest, *own.shape[1:]))
        padded[: len(own)] = own
        everyone = [torch.empty_like(padded) for _ in range(self.size)]
        with _all_present():
            dist.all_gather(everyone, padded)
        return torch.cat(everyone)

    def begin(self, *, go: bool = True) -> None:
        """Tell the others, who wait in `told_to_begin`, that there is work, or that there is none."""
        self.begun = True
        with _all_present():
            dist.broadcast(torch.tensor([int(go)]), 0)

    def told_to_begin(self) -> bool:
        """Wait until the first process says whether there is work."""
        answer = torch.zeros(1, dtype=torch.int64)
        with _all_present():
            dist.broadcast(answer, 0)
        return bool(answer)

    def wait(self) -> None:
        """Wait until all processes are here."""
        with _all_present():
            dist.barrier()


def _stacked(by_name: dict[str, Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(by_name.values()), dim=1) if by_name else like[:, :0]


@contextmanager
def _all_present() -> Iterator[None]:
    """Around every exchange: torch only says that a connection was closed."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(
            "every process of a data-parallel training must go on to its end (lost one: "
            f"{str(error).splitlines()[0]}); see what the others say; the same command goes on from the last checkpoint"
        ) from error


_TEAM: ContextVar[Team | None] = ContextVar("team", default=None)


def current_team() -> Team | None:
    """The team that this process belongs to; none where it trains alone."""
    return _TEAM.get()


def leads() -> bool:
    """Whether this process writes files: it trains alone, or is the first of its team."""
    team = current_team()
    return team is None or team.leads


def wait_for_all() -> None:
    """Wait until all processes of the team are here."""
    team = current_team()
    if team is not None:
        team.wait()


@contextmanager
def team_of(rank: int, size: int, init_method: str = "env://") -> Iterator[Team]:
    """Join the other processes for as long as the block runs.

    Args:
        init_method: Where processes find each other, as torch writes it; torchrun says it in the environment.
    """
    with _all_present():
        dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=size, timeout=TIMEOUT)
    team = Team(rank, size)
    token = _TEAM.set(team)
    try:
        yield team
    finally:
        _TEAM.reset(token)
        dist.destroy_process_group()


def uniform_of_rows(rows: Tensor) -> Tensor:
    """A uniform number for each row [B] of the batch, the same whichever process has the row."""
    span = _SPAN.get()
    if span is None:
        return torch.rand(rows.shape, device=rows.device)
    return torch.rand(span.total, device=rows.device)[span.start : span.stop]


def summed_over_batch(sums: Tensor) -> Tensor:
    """Sums over the rows of the whole batch from those over this process's."""
    if _SPAN.get() is None:
        return sums
    with _all_present():
        dist.all_reduce(sums)
    return sums
