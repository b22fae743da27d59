"""What a run was asked to do: dataset, options and seeds, kept in the run's `run.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from feature_repo.contract import write_atomically

RUN_FILE = "run.json"
DEFAULT_DATASET = "complete_journey"
RUNS_DIR = Path("runs")
_FORMAT = 1


def available_threads() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Options of one run; everything but `out` is saved with it, so that a run can be moved."""

    dataset: str
    """Name of a built-in dataset, or the absolute path of a dataset YAML."""
    out: Path
    """Directory of the run."""
    path: str | None = None
    """Absolute folder or file of the raw data, for datasets that are not installed with pip."""
    seed: int = 1
    """First seed; every random choice follows from it."""
    num_seeds: int = 3
    """Number of seeds that downstream models are trained with, 1 or more."""
    scale: float = 1.0
    """Size of the job relative to the recipe's own, above 0."""
    recipe: str = "default"
    """Name of the recipe that sizes models and training."""
    threads: int = field(default_factory=available_threads)
    """Threads for DuckDB, torch and faiss, 1 or more."""
    until: str | None = None
    """UTC date of the cut-off at which the dataset's window ends early; none for the declared one."""

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ValueError("dataset must be a name or a YAML file (got ''); give --dataset NAME")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0 (got {self.seed}); give --seed 0 or more")
        if self.num_seeds < 1:
            raise ValueError(f"num_seeds must be at least 1 (got {self.num_seeds}); give --seeds 1 or more")
        if not 0.0 < self.scale < float("inf"):
            raise ValueError(
                f"scale must be above 0 and finite (got {self.scale}); give --scale 1 for the recipe's size"
            )
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1 (got {self.threads}); give --threads 1 or more")
        if self.until is not None:
            read_date(self.until, "--until")

    def saved_fields(self) -> dict[str, Any]:
        """Fields that `run.json` keeps: all but `out`."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "out"}

    def to_json(self) -> str:
        """Text of `run.json`."""
        return json.dumps({"format": _FORMAT, **self.saved_fields()}, indent=2) + "\n"


def load(directory: Path) -> RunConfig | None:
    """Options that the run in `directory` was last started with; none where no run has started.

    Raises:
        ValueError: `run.json` cannot be read as options of this program.
    """
    file = directory / RUN_FILE
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text())
        return RunConfig(out=directory, **_checked(raw))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} must hold the options of a run ({error}); restore it or take another --run"
        ) from error


def _checked(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or raw.pop("format", None) != _FORMAT:
        raise ValueError(f"it must be an object with format {_FORMAT}")
    known = {each.name for each in dataclasses.fields(RunConfig)} - {"out"}
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"unknown key {unknown[0]!r}")
    return raw


def save(config: RunConfig) -> str | None:
    """Write `run.json` and return what it held before, for `restore`."""
    file = config.out / RUN_FILE
    earlier = file.read_text() if file.is_file() else None
    write_atomically(file, config.to_json())
    return earlier


def restore(directory: Path, earlier: str | None) -> None:
    """Put back what `save` replaced."""
    if earlier is None:
        (directory / RUN_FILE).unlink(missing_ok=True)
    else:
        write_atomically(directory / RUN_FILE, earlier)


def changes(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Options that differ, as (before, after)."""
    old, new = before.saved_fields(), after.saved_fields()
    return {key: (old[key], new[key]) for key in old if old[key] != new[key]}


def resolve(
    *,
    run: Path | None,
    dataset: str | None = None,
    path: Path | None = None,
    seed: int | None = None,
    num_seeds: int | None = None,
    scale: float | None = None,
    recipe: str | None = None,
    threads: int | None = None,
    until: str | None = None,
) -> tuple[RunConfig, RunConfig | None]:
    """Options of a run: what was given now, else what it was started with, else the defaults.

    Returns:
        The options to work with, and those that the run was last started with (none for a new run).

    Raises:
        ValueError: an option is out of range, or the dataset file or the data path does not exist.
    """
    name = _dataset(dataset) if dataset is not None else None
    directory = run if run is not None else RUNS_DIR / Path(name or DEFAULT_DATASET).stem
    before = load(directory)
    given = {
        "dataset": name,
        "path": _existing(path, "--path") if path is not None else None,
        "seed": seed,
        "num_seeds": num_seeds,
        "scale": scale,
        "recipe": recipe,
        "threads": threads,
        "until": until,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if before is not None and given.get("dataset", before.dataset) != before.dataset:
        given.setdefault("path", None)
    start = before if before is not None else RunConfig(dataset=DEFAULT_DATASET, out=directory)
    return dataclasses.replace(start, **given), before  # type: ignore[arg-type]


def read_date(text: str, option: str) -> date:
    """A date as people give it on the command line.

    Raises:
        ValueError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a date such as 2024-01-31 (got {text!r}); write it as YYYY-MM-DD") from None


def _dataset(value: str) -> str:
    if not value.endswith((".yaml", ".yml")):
        return value
    return _existing(Path(value), "--dataset")


def _existing(path: Path, option: str) -> str:
    if not path.exists():
        raise ValueError(f"{option} must name something that exists (got {str(path)!r}); check the spelling")
    return str(path.resolve())
