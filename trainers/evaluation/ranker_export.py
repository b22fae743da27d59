"""Rankers as ONNX programs that take user and context once per request, held against the ranker that was trained.

Dims: R requests, B candidates.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from feature_repo.encoding import REQUEST_ROW
from trainers.data.examples import Examples
from trainers.evaluation.onnx_export import NUM_TRACED, Case, checked_rows, export_program, recorded
from trainers.ranking.model import Ranker
from trainers.ranking.per_request import PerRequestRanker

_OF_CANDIDATE = ("pin_", REQUEST_ROW)
"""How the names of inputs with a row per candidate begin; the others have one per request."""


def export_ranker(ranker: Ranker, examples: Examples, file: Path) -> float:
    """Write a ranker as an ONNX program for any number of requests with any number of candidates.

    Args:
        ranker: In evaluation mode.
        examples: Impressions to check with, at least one.

    Returns:
        Largest difference between the program's outputs and those of the ranker as it was trained, which takes a row of
        everything per candidate, as `onnx_export.TOLERANCE` counts it.

    Raises:
        ExportError: It is more than the tolerance.
    """
    rows = checked_rows(len(examples))
    cases = [_own_requests(ranker, examples.tensors(rows)), _one_request(ranker, examples.tensors(rows))]
    traced = {name: value[: _num_traced(name)] for name, value in cases[0].inputs.items()}
    traced[REQUEST_ROW] = torch.arange(NUM_TRACED) % (NUM_TRACED - 1)
    dims = {name: "candidates" if _of_candidate(name) else "requests" for name in traced}
    return export_program(PerRequestRanker(ranker).eval(), traced, dims, cases, file)


def _own_requests(ranker: Ranker, inputs: dict[str, Tensor]) -> Case:
    """Every candidate of a request of its own, in reverse."""
    case = recorded(ranker, inputs)
    order = torch.arange(len(next(iter(inputs.values())))).flip(0)
    asked = {name: value if _of_candidate(name) else value[order] for name, value in case.inputs.items()}
    return Case(inputs={**asked, REQUEST_ROW: order}, expected=case.expected)


def _one_request(ranker: Ranker, inputs: dict[str, Tensor]) -> Case:
    """All candidates of the first one's request, as a server asks."""
    repeated = {name: value if _of_candidate(name) else value[:1].expand_as(value) for name, value in inputs.items()}
    case = recorded(ranker, repeated)
    once = {name: value if _of_candidate(name) else value[:1] for name, value in case.inputs.items()}
    candidates = len(next(iter(inputs.values())))
    return Case(inputs={**once, REQUEST_ROW: torch.zeros(candidates, dtype=torch.int64)}, expected=case.expected)


def _of_candidate(name: str) -> bool:
    return name.startswith(_OF_CANDIDATE)


def _num_traced(name: str) -> int:
    """Another number of requests than of candidates, so that neither is taken for the other."""
    return NUM_TRACED if _of_candidate(name) else NUM_TRACED - 1
