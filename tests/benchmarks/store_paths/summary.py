"""Rows of a case from its repetitions: medians or quantiles, spread, and the highest memory of each way."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.store_paths.journal import Measured
from tests.benchmarks.store_paths.plan import OURS, QUANTILES, Case, Wanted
from tests.benchmarks.store_paths.worker import Repetition

Summary = Callable[[Sequence[Repetition]], float]
_DIGITS = 4


def identities(case: Case, repeats: int) -> list[tuple[str, dict[str, str | int | float]]]:
    """Names of the rows of a case, and the params by which each is told from all others."""
    return [
        (wanted.name, {**wanted.params, **extra, "repeats": repeats})
        for wanted in case.rows
        for extra in _row_params(case)
    ]


def _row_params(case: Case) -> list[dict[str, str | int | float]]:
    if not case.quantiles:
        return [{}]
    return [{"quantile": f"p{100 * quantile:g}"} for quantile in QUANTILES]


def result_rows(
    case: Case, measured: Mapping[str, Measured], *, repeats: int, machine: str, commit: str
) -> list[ResultRow]:
    """All rows of a case that is done."""
    summaries = _summaries(case)
    found = []
    for name, params in identities(case, repeats):
        wanted = next(each for each in case.rows if each.name == name and each.params.items() <= params.items())
        made = _figures(wanted, measured, summaries[str(params.get("quantile", ""))])
        whole: dict[str, Any] = {"name": name, "unit": "ms" if case.quantiles else "s", "n": case.num_rows, **made}
        whole["params"] = {**params, **_said(wanted, measured, made, summaries[str(params.get("quantile", ""))])}
        found.append(ResultRow.model_validate({**whole, "machine": machine, "commit": commit}))
    return found


def _summaries(case: Case) -> dict[str, Summary]:
    if not case.quantiles:
        return {"": lambda repetitions: statistics.median(sum(each.seconds) for each in repetitions)}
    return {f"p{100 * quantile:g}": _quantile(quantile) for quantile in QUANTILES}


def _quantile(quantile: float) -> Summary:
    """Milliseconds of a quantile of all calls."""

    def summary(repetitions: Sequence[Repetition]) -> float:
        seconds = [each for repetition in repetitions for each in repetition.seconds]
        return float(np.quantile(seconds, quantile)) * 1000

    return summary


def _figures(wanted: Wanted, measured: Mapping[str, Measured], summary: Summary) -> dict[str, float]:
    """Figures of the columns; those of a way that was stopped are absent."""
    figures = {
        column: round(summary(measured[way].repetitions), _DIGITS)
        for column, way in wanted.variants.items()
        if measured[way].stopped is None
    }
    ours = measured[wanted.variants[OURS]].repetitions
    return {**figures, "spread": _spread(ours, summary), "peak_mb": _peak_mb(ours)}


def _said(
    wanted: Wanted, measured: Mapping[str, Measured], figures: Mapping[str, float], summary: Summary
) -> dict[str, str | int | float]:
    """What there is to say of the other ways: why one was stopped, else its spread and memory."""
    said: dict[str, str | int | float] = {}
    for column, way in wanted.variants.items():
        done = measured[way]
        if done.stopped is not None:
            said[column] = done.stopped
        elif column != OURS and column in figures:
            said[f"{column}_spread"] = _spread(done.repetitions, summary)
            said[f"{column}_peak_mb"] = _peak_mb(done.repetitions)
    return said


def _spread(repetitions: Sequence[Repetition], summary: Summary) -> float:
    each = [summary([repetition]) for repetition in repetitions]
    return round(max(each) - min(each), _DIGITS)


def _peak_mb(repetitions: Sequence[Repetition]) -> float:
    return round(max(each.peak_mb for each in repetitions), 1)
