"""What a stock Feast client in another process reads back from a run: `make bench-feast_client ARGS="--run runs/demo"`.

The other process starts elsewhere and calls nothing but `feast`. Every value it gets is compared with the newest rows
of the offline files. Fails when one differs.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from feature_repo.contract import (
    CREATED_TIMESTAMP,
    ENTITIES,
    EVENT_TIMESTAMP,
    RepoManifest,
    activity_view,
    consumer_services,
    feature_reference,
    join_key,
    service_name,
)
from tests.benchmarks.figures import feast_reader
from tests.benchmarks.figures.results import ResultRow, check_finished, write_rows
from trainers.run_config import available_threads

FEAST_CLIENT = "feast_client"
CALLS = ("get_online_features", "get_historical_features")


def measure(run: Path, *, num_rows: int, repeats: int, commit: str) -> list[ResultRow]:
    """A row for opening the repo and one for each way of reading.

    Raises:
        RuntimeError: The other process failed.
    """
    repo = run / "feature_repo"
    manifest = RepoManifest.load(repo / "data")
    service = service_name("ranking", manifest.embeddings)
    keys = entity_rows(repo, num_rows)
    with tempfile.TemporaryDirectory() as folder:
        figures, answers = _read(repo, service, keys, Path(folder), repeats)
    expected = offline_values(repo, consumer_services(manifest)[service].views, keys)
    common = {"dataset": manifest.dataset, "service": service, "command": _command(num_rows, repeats)}
    machine = f"{platform.machine()}, {available_threads()} threads, Python {platform.python_version()}"
    rows = [_row("open", figures, common, keys.num_rows, machine, commit)]
    for call in CALLS:
        values, equal = compared(expected, answers[call])
        found = common | {"values": values, "equal": equal}
        rows.append(_row(call, figures, found, keys.num_rows, machine, commit))
    return rows


def _command(num_rows: int, repeats: int) -> str:
    return f"python -m tests.benchmarks.feast_client --rows {num_rows} --repeats {repeats}"


def _row(
    call: str, figures: dict[str, Any], params: dict[str, Any], num_rows: int, machine: str, commit: str
) -> ResultRow:
    seconds = figures["seconds"][call]
    once = len(seconds) == 1
    return ResultRow(
        name=FEAST_CLIENT,
        params={**params, "call": call},
        unit="s",
        stock=round(statistics.median(seconds), 3),
        spread=None if once else round(max(seconds) - min(seconds), 3),
        peak_mb=round(figures["peak_mb"], 1) if call == CALLS[-1] else None,
        n=None if call == "open" else num_rows,
        machine=machine,
        commit=commit,
    )


def entity_rows(repo: Path, num_rows: int) -> pa.Table:
    """Users and Pins of the newest activity snapshots, in pairs, at the moment from which both may be used."""
    columns: dict[str, Any] = {}
    moments = []
    for entity in ENTITIES:
        newest = max((repo / "data" / "offline" / activity_view(entity)).glob("*.parquet"))
        snapshot = pq.read_table(newest, columns=[join_key(entity), EVENT_TIMESTAMP])
        columns[join_key(entity)] = snapshot[join_key(entity)].slice(0, num_rows)
        moments.append(pc.max(snapshot[EVENT_TIMESTAMP]).as_py())
    paired = min(len(values) for values in columns.values())
    when = pa.array([max(moments)] * paired, pa.timestamp("us", tz="UTC"))
    return pa.table({name: values.slice(0, paired) for name, values in columns.items()} | {EVENT_TIMESTAMP: when})


def _read(
    repo: Path, service: str, keys: pa.Table, folder: Path, repeats: int
) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    pq.write_table(keys, folder / "keys.parquet")
    arguments = [str(repo.resolve()), service, "keys.parquet", str(folder), str(repeats)]
    script = str(Path(feast_reader.__file__).resolve())
    done = subprocess.run([sys.executable, script, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the Feast client must end well (got exit code {done.returncode}):\n{done.stderr[-2000:]}")
    figures = json.loads((folder / "seconds.json").read_text())
    return figures, {call: pq.read_table(folder / f"{call}.parquet") for call in CALLS}


def offline_values(repo: Path, views: Sequence[str], keys: pa.Table) -> dict[str, list[Any]]:
    """What the files hold for each entity row, by full feature name; null where a view has no row."""
    values: dict[str, list[Any]] = {}
    moment = keys[EVENT_TIMESTAMP][0].as_py()
    for view in views:
        entity = view.partition("_")[0]
        rows = _newest_rows(repo / "data" / "offline" / view, join_key(entity), moment)
        at = pc.index_in(keys[join_key(entity)], value_set=rows[join_key(entity)].combine_chunks())
        for name in rows.column_names:
            if name not in (join_key(entity), EVENT_TIMESTAMP, CREATED_TIMESTAMP):
                values[feature_reference(view, name)] = rows[name].take(at).to_pylist()
    return values


def _newest_rows(folder: Path, key: str, moment: datetime) -> pa.Table:
    """One row a key: the newest that may be used at a moment."""
    table = pq.read_table(folder, partitioning=None)
    table = table.filter(pc.less_equal(table[EVENT_TIMESTAMP], pa.scalar(moment, table[EVENT_TIMESTAMP].type)))
    table = table.sort_by([(EVENT_TIMESTAMP, "descending"), (CREATED_TIMESTAMP, "descending")])
    found = (
        table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
        .group_by(key)
        .aggregate([("row", "min")])
    )
    return table.take(found["row_min"])


def compared(expected: dict[str, list[Any]], got: pa.Table) -> tuple[int, int]:
    """Values that were compared, and those that are equal; a feature that only one side knows counts as different."""
    names = {name for name in got.column_names if "__" in name} | set(expected)
    num_rows = got.num_rows
    equal = 0
    for name in names & set(expected) & set(got.column_names):
        equal += sum(a == b for a, b in zip(expected[name], got[name].to_pylist(), strict=True))
    return len(names) * num_rows, equal


def main(
    run: Annotated[Path, typer.Option(help="Finished run.")] = Path("runs/demo"),
    rows: Annotated[int, typer.Option(help="Entity rows to read.")] = 500,
    repeats: Annotated[int, typer.Option(help="Repetitions of each read.")] = 5,
) -> None:
    """Read a run with a stock Feast client and write tests/benchmarks/results/feast_client.json."""
    from trainers.evaluation.step import commit

    check_finished(run)
    found = measure(run, num_rows=rows, repeats=repeats, commit=commit() or "unknown")
    for row in found:
        typer.echo(
            f"{row.params['call']}: {row.stock} s, {row.params.get('equal', '')} of {row.params.get('values', '')}"
        )
    different = [row for row in found if row.params.get("equal") != row.params.get("values")]
    if different:
        raise SystemExit(f"every value must equal the offline files (got {len(different)} reads that differ)")
    typer.echo(f"wrote {write_rows(FEAST_CLIENT, found)}")


if __name__ == "__main__":
    typer.run(main)
