"""Tables of `make bench-training`; all figures are invented."""

from __future__ import annotations

import pytest

from tests.benchmarks.document import benchmarks_text
from tests.benchmarks.figures.results import ResultRow, Results
from tests.benchmarks.figures.training_tables import (
    EMBEDDING,
    FLOPS,
    GPU,
    INPUTS,
    TRAINING,
    is_flat,
    ratio,
    training_sections,
)

PARAMS = {"processes": 2, "batch_size": 1024, "repeats": 5}


def row(name: str, params: dict[str, object] | None = None, **figures: object) -> ResultRow:
    whole = {"name": name, "unit": "examples/s", "machine": "invented", "commit": "0123", "spread": 1.0, "n": 5}
    return ResultRow.model_validate(whole | {"params": PARAMS | (params or {})} | figures)


def embedded(entities: int, peak_mb: float) -> ResultRow:
    return row(EMBEDDING, {"entities": entities}, unit="entities/s", ours=50_000.0, raw=8000.0, peak_mb=peak_mb)


TRAINED = row(TRAINING, {"parameters": 1000, "stock_peak_mb": 800.0}, ours=8000.0, stock=2000.0, peak_mb=600.0)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (TRAINED, 4.0),
        (row(FLOPS, ours=30.0, raw=120.0), 0.25),
        (row(INPUTS, {"step_ms": 200.0}, ours=5.0), 0.025),
        (embedded(1000, 500.0), 6.25),
        (row(GPU, {"flops_per_example": 1_000_000, "matmul_gflops": 500}, ours=100_000.0), 0.2),
        (row(TRAINING, ours=8000.0), None),
    ],
)
def test_ratio_of_a_training_row_is_worked_out_from_its_figures(measured: ResultRow, expected: float | None) -> None:
    assert ratio(measured) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("peak_mb", "expected"), [(549.0, True), (551.0, False)])
def test_memory_of_many_entities_is_flat_up_to_a_tenth(peak_mb: float, expected: bool) -> None:
    few, many = embedded(1000, 500.0), embedded(4000, peak_mb)
    assert is_flat(few, [few, many]) is None
    assert is_flat(many, [few, many]) is expected


def test_training_table_shows_ratios_peaks_and_goals() -> None:
    rows = [TRAINED, row(FLOPS, {"flops_per_example": 7_000_000}, unit="GFLOP/s", ours=30.0, raw=120.0)]
    text = "\n".join(training_sections(rows))
    expected = "| training, 1,000 weights | 8,000 examples/s | 1 | plain loop 2,000 | 4.00 | 600, plain loop 800 |"
    assert f"{expected} ≥ 3×: met |" in text
    assert "| matrix product 120 | 0.25 |  | ≥ 50 %: **missed** |" in text
    assert "`make bench-training`, 2 processes, batches of 1,024, 5 rounds, commit `0123`, invented." in text


def test_training_section_says_why_nothing_ran_on_a_gpu() -> None:
    skipped = row(GPU, {"skipped": "no GPU"})
    assert "On a GPU nothing was measured: no GPU.\n" in training_sections([TRAINED, skipped])


def test_document_has_a_section_on_training_where_it_was_measured() -> None:
    assert "## Training" in benchmarks_text(Results(rows=(TRAINED,)))
    assert "## Training" not in benchmarks_text(
        Results(rows=(row("tests", {"skipped": 3, "passed": 4, "command": "make test"}, ours=2.0),))
    )
