"""How fast upstream models train and embed on this machine, against baselines of the same run: `make bench-training`.

One process a core with one thread each, as a run trains its models; rates are those of all processes together. The ways
take turns, so that whatever changes on the machine changes for all of them. Sizes and inputs are those of the recipe
`default` on KuaiRand; the rows are made up.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks.figures.results import RESULTS, ResultRow, write_rows
from tests.benchmarks.figures.training_tables import TRAINING_FILE
from tests.benchmarks.training_paths import accelerator
from tests.benchmarks.training_paths.made_rows import Sizes
from tests.benchmarks.training_paths.summary import (
    Embedded,
    Measured,
    Origin,
    Rounds,
    embedding_row,
    gpu_rows,
    training_rows,
)
from tests.benchmarks.training_paths.ways import EMBED, MATMUL, PLAIN, TRAIN, Setup
from tests.benchmarks.training_paths.workers import Workers
from trainers.run_config import available_threads
from trainers.upstream import recipes

MIN_REPEATS = 5
EXAMPLES, ENTITIES, GROWTH = 16_384, 32_768, 4
GPU_STEPS = 20


def measure(setup: Setup, *, processes: int, repeats: int, origin: Origin) -> list[ResultRow]:
    """All rows."""
    ways = (MATMUL, TRAIN, PLAIN)
    with Workers(setup, processes) as workers:
        for way in (*ways, EMBED):
            workers.warm_up(way)
        typer.echo("set up: matrix product, training, plain loop and embedding take turns")
        rounds: Rounds = {way: [] for way in (*ways, EMBED)}
        for number in range(repeats):
            for way, done in rounds.items():
                done.append(workers.repeat(way))
            typer.echo(f"round {number + 1} of {repeats} done")
        flops, num_parameters = workers.size()
    measured = Measured(
        rounds=rounds,
        peak_mb={way: _peak_mb(setup, way) for way in (TRAIN, PLAIN)},
        flops_per_example=flops,
        num_parameters=num_parameters,
    )
    rows = training_rows(measured, origin)
    trained = rows[0].ours or 0.0
    small = Embedded(num_entities=setup.num_entities, rounds=rounds[EMBED], peak_mb=_peak_mb(setup, EMBED))
    rows.append(embedding_row(small, trained, origin))
    rows.append(embedding_row(_many(setup, processes, repeats), trained, origin))
    reason = accelerator.skipped()
    found = [] if reason else accelerator.measure(setup.recipe, setup.sizes, repeats=repeats, steps=GPU_STEPS)
    return [*rows, *gpu_rows(found, reason, flops, origin)]


def _many(setup: Setup, processes: int, repeats: int) -> Embedded:
    """Embedding of so many more entities."""
    large = replace(setup, num_entities=GROWTH * setup.num_entities, folder=setup.folder / "many")
    with Workers(large, processes) as workers:
        workers.warm_up(EMBED)
        rounds = [workers.repeat(EMBED) for _ in range(repeats)]
    return Embedded(num_entities=large.num_entities, rounds=rounds, peak_mb=_peak_mb(large, EMBED))


def _peak_mb(setup: Setup, way: str) -> float:
    """Peak of a process that does nothing else; what the work reads lies there from the rounds."""
    with Workers(setup, 1) as workers:
        return workers.peak_mb(way)


def main(
    examples: Annotated[int, typer.Option(help="Rows of one repetition of training.", min=2048)] = EXAMPLES,
    entities: Annotated[int, typer.Option(help="Entities of one repetition of embedding.", min=1024)] = ENTITIES,
    seconds: Annotated[float, typer.Option(help="Least time of one repetition of the matrix product.")] = 1.0,
    repeat: Annotated[int, typer.Option(help="Repetitions.", min=1)] = MIN_REPEATS,
    processes: Annotated[int, typer.Option(help="Processes at once; one a core if absent.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of training.json.")] = RESULTS,
) -> None:
    """Measure training and embedding and write tests/benchmarks/results/training.json."""
    from trainers.commit import commit

    small = (examples, entities, repeat) != (EXAMPLES, ENTITIES, MIN_REPEATS)
    if small and out == RESULTS:
        raise typer.BadParameter("figures of other sizes must go to a folder of their own; add --out FOLDER")
    recipe, count = recipes.default(), processes or available_threads()
    origin = Origin(
        machine=f"{platform.machine()}, {available_threads()} threads, Python {platform.python_version()}",
        commit=commit() or "unknown",
        params={"processes": count, "batch_size": recipe.batch_size, "examples": examples, "repeats": repeat},
    )
    with tempfile.TemporaryDirectory(prefix="bench_training_") as folder:
        setup = Setup(
            recipe=recipe,
            sizes=Sizes(),
            num_examples=examples,
            num_entities=entities,
            seconds=seconds,
            folder=Path(folder),
        )
        rows = measure(setup, processes=count, repeats=repeat, origin=origin)
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(f"wrote {write_rows(TRAINING_FILE, rows, out)}")


if __name__ == "__main__":
    typer.run(main)
