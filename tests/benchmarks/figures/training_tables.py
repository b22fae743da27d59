"""Tables of `make bench-training`, with the goals."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures.results import ResultRow
from tests.benchmarks.figures.tables import table

TRAINING_FILE = "training"
TRAINING, FLOPS, INPUTS = "upstream_training", "upstream_flops", "input_pipeline"
EMBEDDING, GPU = "embedding_generation", "gpu_training"
OVER_PLAIN, OF_MATMUL, OF_STEP, OVER_TRAINING, FLAT = 3.0, 0.5, 0.05, 5.0, 1.1
"""Goals: times the plain loop, share of a matrix product and of a step, times training, growth that is still flat."""

HEADER = ("what", "ours", "spread", "compared with", "ratio", "peak MiB", "goal")
EXPLANATION = (
    "An upstream model with the sizes and inputs of the recipe `default` on KuaiRand, on made rows. One process a "
    "core, one thread each, as a run trains its models; rates are those of all processes together, medians of rounds "
    "in which the ways take turns; spread is the largest round less the smallest, peaks are of one process. The plain "
    "loop is the same model and losses with a `DataLoader` over rows and torch's AdamW. Operations are those of matrix "
    "products and attention alone, forward and backward; the matrix product beside them is 2,048 × 2,048 in float32, "
    "in the same processes. Users are embedded from the files of their inputs to the file of their vectors."
)


def training_sections(rows: Sequence[ResultRow]) -> list[str]:
    """Heading, explanation, table and origin of what was measured."""
    shown = [row for row in rows if row.name in _CELLS and "skipped" not in row.params]
    if not shown:
        return []
    first = shown[0]
    origin = (
        f"`make bench-training`, {first.params['processes']} processes, batches of {first.params['batch_size']:,}, "
        f"{first.params['repeats']} rounds, commit `{first.commit}`, {first.machine}.\n"
    )
    lines = [table(HEADER, [_CELLS[row.name](row, shown) for row in shown]), *_without_gpu(rows), origin]
    return ["## Training\n", f"{EXPLANATION}\n", *lines]


def _without_gpu(rows: Sequence[ResultRow]) -> list[str]:
    skipped = [row for row in rows if row.name == GPU and "skipped" in row.params]
    return [f"On a GPU nothing was measured: {row.params['skipped']}.\n" for row in skipped]


def ratio(row: ResultRow) -> float | None:
    """Ours over what it is compared with; none where either was not measured."""
    compared = {
        TRAINING: row.stock,
        FLOPS: row.raw,
        INPUTS: float(row.params.get("step_ms", 0.0)),
        EMBEDDING: row.raw,
        GPU: float(row.params.get("matmul_gflops", 0.0)),
    }[row.name]
    if row.ours is None or not compared:
        return None
    own = row.ours * float(row.params["flops_per_example"]) / 1e9 if row.name == GPU else row.ours
    return own / compared


def is_flat(row: ResultRow, rows: Sequence[ResultRow]) -> bool | None:
    """Whether so many entities take no more memory than the fewest; none for these themselves."""
    fewer = [each for each in rows if each.name == row.name and _entities(each) < _entities(row)]
    if row.peak_mb is None or not fewer:
        return None
    return row.peak_mb <= FLAT * min(each.peak_mb or 0.0 for each in fewer)


def _entities(row: ResultRow) -> int:
    return int(row.params.get("entities", 0))


def _training(row: ResultRow, rows: Sequence[ResultRow]) -> tuple[str, ...]:
    del rows
    found = ratio(row)
    peaks = f"{row.peak_mb or 0:,.0f}, plain loop {row.params['stock_peak_mb']:,.0f}"
    what = f"training, {row.params['parameters']:,} weights"
    return _cells(row, what, f"plain loop {_number(row.stock)}", found, peaks, _goal("≥ 3×", found, OVER_PLAIN))


def _flops(row: ResultRow, rows: Sequence[ResultRow]) -> tuple[str, ...]:
    del rows
    found = ratio(row)
    what = f"operations, {float(row.params['flops_per_example']) / 1e6:.1f} M an example"
    return _cells(row, what, f"matrix product {_number(row.raw)}", found, "", _goal("≥ 50 %", found, OF_MATMUL))


def _inputs(row: ResultRow, rows: Sequence[ResultRow]) -> tuple[str, ...]:
    del rows
    found = ratio(row)
    met = None if found is None else found <= OF_STEP
    return _cells(row, "input pipeline", f"step {row.params['step_ms']} ms", found, "", f"≤ 5 %: {_met(met)}")


def _embedding(row: ResultRow, rows: Sequence[ResultRow]) -> tuple[str, ...]:
    found, flat = ratio(row), is_flat(row, rows)
    goal = _goal("≥ 5× training", found, OVER_TRAINING)
    goal += "" if flat is None else f"; memory flat: {_met(flat)}"
    what = f"embedding, {row.params['entities']:,} users"
    return _cells(row, what, f"training {_number(row.raw)}", found, f"{row.peak_mb or 0:,.0f}", goal)


def _gpu(row: ResultRow, rows: Sequence[ResultRow]) -> tuple[str, ...]:
    del rows
    what = f"GPU, {row.params['precision']}, batches of {row.params['batch_size']:,}"
    compared = f"matrix product {float(row.params['matmul_gflops']):,.0f} GFLOP/s"
    return _cells(row, what, compared, ratio(row), f"{row.peak_mb or 0:,.0f}", "")


_CELLS = {TRAINING: _training, FLOPS: _flops, INPUTS: _inputs, EMBEDDING: _embedding, GPU: _gpu}


def _cells(row: ResultRow, what: str, compared: str, found: float | None, peaks: str, goal: str) -> tuple[str, ...]:
    shown = "" if found is None else f"{found:.2f}"
    return (what, f"{_number(row.ours)} {row.unit}", _number(row.spread), compared, shown, peaks, goal)


def _goal(text: str, found: float | None, least: float) -> str:
    return f"{text}: {_met(None if found is None else found >= least)}"


def _met(met: bool | None) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[met]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
