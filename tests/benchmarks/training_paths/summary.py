"""Rows of `training.json` from what the processes measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.figures.training_tables import EMBEDDING, FLOPS, GPU, INPUTS, TRAINING
from tests.benchmarks.training_paths.accelerator import DeviceFigures
from tests.benchmarks.training_paths.ways import MATMUL, PLAIN, TRAIN, Repetition
from tests.benchmarks.training_paths.workers import rate

Rounds = dict[str, list[list[Repetition]]]
"""Repetitions of every process, round by round, by way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Everything that was measured on the processor."""

    rounds: Rounds
    peak_mb: dict[str, float]
    """Highest resident memory of a process by way."""
    flops_per_example: float
    num_parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """The same of embedding so many entities."""

    num_entities: int
    rounds: list[list[Repetition]]
    peak_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where figures come from."""

    machine: str
    commit: str
    params: dict[str, str | int | float]
    """What all rows were measured under."""


def training_rows(measured: Measured, origin: Origin) -> list[ResultRow]:
    """Rows of training against the plain loop, against a matrix product, and of its input pipeline."""
    trained, plain = (_rates(measured.rounds[way]) for way in (TRAIN, PLAIN))
    flops = [each * measured.flops_per_example / 1e9 for each in trained]
    product = [each / 1e9 for each in _rates(measured.rounds[MATMUL])]
    size = {"parameters": measured.num_parameters}
    return [
        _row(
            origin,
            TRAINING,
            "examples/s",
            trained,
            stock=statistics.median(plain),
            peak_mb=measured.peak_mb[TRAIN],
            params={**size, "stock_spread": _spread(plain), "stock_peak_mb": round(measured.peak_mb[PLAIN], 1)},
        ),
        _row(
            origin,
            FLOPS,
            "GFLOP/s",
            flops,
            raw=statistics.median(product),
            params={
                **size,
                "raw_spread": _spread(product),
                "flops_per_example": round(measured.flops_per_example),
            },
        ),
        _input_row(measured, origin),
    ]


def _input_row(measured: Measured, origin: Origin) -> ResultRow:
    every = [each for both in measured.rounds[TRAIN] for each in both]
    steps = [each.units / float(origin.params["batch_size"]) for each in every]
    inputs = [1000.0 * each.input_seconds / count for each, count in zip(every, steps, strict=True)]
    whole = [1000.0 * each.seconds / count for each, count in zip(every, steps, strict=True)]
    return _row(origin, INPUTS, "ms a step", inputs, params={"step_ms": round(statistics.median(whole), 2)})


def embedding_row(embedded: Embedded, trained: float, origin: Origin) -> ResultRow:
    """Row of embedding entities beside the training rate.

    Args:
        trained: Examples a second.
    """
    return _row(
        origin,
        EMBEDDING,
        "entities/s",
        _rates(embedded.rounds),
        raw=trained,
        peak_mb=embedded.peak_mb,
        params={"entities": embedded.num_entities},
    )


def gpu_rows(
    found: Sequence[DeviceFigures], reason: str | None, flops_per_example: float, origin: Origin
) -> list[ResultRow]:
    """Rows of the steps on a GPU, or one that says why there are none."""
    if reason is not None:
        made = {"params": {"skipped": reason}, "machine": origin.machine, "commit": origin.commit}
        return [ResultRow.model_validate({"name": GPU, "unit": "examples/s", **made})]
    return [
        ResultRow(
            name=GPU,
            params={
                "precision": "bfloat16",
                "batch_size": each.batch_size,
                "flops_per_example": round(flops_per_example),
                "matmul_gflops": round(each.matmul_flops / 1e9),
            },
            unit="examples/s",
            ours=_short(each.examples_per_second),
            spread=_short(each.spread),
            peak_mb=round(each.peak_mb, 1),
            n=int(origin.params["repeats"]),
            machine=origin.machine,
            commit=origin.commit,
        )
        for each in found
    ]


def _row(
    origin: Origin, name: str, unit: str, ours: Sequence[float], *, params: dict[str, Any], **figures: float
) -> ResultRow:
    return ResultRow.model_validate(
        {
            "name": name,
            "unit": unit,
            "params": {**origin.params, **params},
            "ours": _short(statistics.median(ours)),
            "spread": _spread(ours),
            "n": int(origin.params["repeats"]),
            "machine": origin.machine,
            "commit": origin.commit,
            **{key: _short(value) for key, value in figures.items()},
        }
    )


def _rates(rounds: Sequence[Sequence[Repetition]]) -> list[float]:
    return [rate(each) for each in rounds]


def _spread(values: Sequence[float]) -> float:
    return _short(max(values) - min(values))


def _short(value: float) -> float:
    """Four digits that count."""
    return float(f"{value:.4g}")
