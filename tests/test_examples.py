"""The examples that other teams copy: what they import, what they name, and that the notebook runs."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml
from jinja2 import Environment

from serving.metrics import Metrics
from serving.settings import Settings
from tests.imports import ROOT
from trainers.cli import app

EXAMPLES = ROOT / "examples"
CONTAINERS = EXAMPLES / "containers"
_INSTRUCTIONS = "FROM WORKDIR COPY RUN USER ENV EXPOSE HEALTHCHECK CMD"


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, without the standard library's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("downstream_ranker/ranker.py", {"feast", "numpy", "pandas", "sklearn"}),
        ("downstream_ranker/share_registry.py", {"feast"}),
        ("airflow/headwater_refresh.py", {"airflow", "pendulum"}),
        ("grocer/export.py", {"duckdb", "trainers"}),
    ],
)
def test_examples_import_no_more_than_they_say(name: str, allowed: set[str]) -> None:
    assert imported(EXAMPLES / name) == allowed


class Task:
    """What the DAG says of one of its tasks, in place of Airflow's operator."""

    made: ClassVar[list[Task]] = []

    def __init__(self, **given: Any) -> None:
        self.given, self.is_teardown = given, False
        self.after: list[Task] = []
        self.made.append(self)

    def __rshift__(self, other: Task) -> Task:
        other.after.append(self)
        return other

    def as_teardown(self) -> Task:
        self.is_teardown = True
        return self


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Task]]:
    """Arguments of the DAG and its tasks by name, as Airflow, which is no dependency here, would be given them."""
    given: dict[str, Any] = {}

    @contextmanager
    def dag_of(**arguments: Any) -> Iterator[None]:
        given.update(arguments)
        yield

    monkeypatch.setattr(Task, "made", [])
    sdk = SimpleNamespace(DAG=dag_of, Variable=SimpleNamespace(get=lambda _name, default="/srv/headwater": default))
    pendulum = SimpleNamespace(datetime=lambda *day, tz: (*day, tz), duration=timedelta)
    modules = {"airflow.sdk": sdk, "airflow.providers.standard.operators.bash": SimpleNamespace(BashOperator=Task)}
    for name, module in {"pendulum": pendulum, **modules}.items():
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(EXAMPLES / "airflow" / "headwater_refresh.py"))
    return given, {task.given["task_id"]: task for task in Task.made}


def test_dag_calls_commands_and_options_that_exist(dag: tuple[dict[str, Any], dict[str, Task]]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    templates = Environment(autoescape=False)
    templates.filters["ds"] = date.isoformat
    night = SimpleNamespace(run_after=date(2024, 1, 15))
    for name, task in dag[1].items():
        line = templates.from_string(task.given["bash_command"]).render(params=dag[0]["params"], dag_run=night)
        assert line.startswith("cd /srv/headwater && .venv/bin/headwater "), line
        words = shlex.split(line.partition("bin/headwater ")[2])
        assert words[0] == name
        options = {option for parameter in commands[words[0]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_dag_runs_one_night_at_a_time_and_retries(dag: tuple[dict[str, Any], dict[str, Task]]) -> None:
    given, _ = dag
    assert re.fullmatch(r"([\d*]+ ){4}[\d*]+", given["schedule"])
    assert (given["max_active_runs"], given["catchup"], given["default_args"]["retries"]) == (1, False, 4)


def test_dag_fails_with_its_refresh_though_status_follows(dag: tuple[dict[str, Any], dict[str, Task]]) -> None:
    """A task that always runs last decides over the night, unless it is a teardown."""
    refresh, status = dag[1]["refresh"], dag[1]["status"]
    assert status.after == [refresh]
    assert (refresh.is_teardown, status.is_teardown) == (False, True)


def test_compose_names_files_variables_and_volumes_that_exist() -> None:
    compose: dict[str, Any] = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())
    assert set(compose["services"]) == {"server", "valkey", "prometheus", "grafana"}
    for service in compose["services"].values():
        assert re.search(r":[^:]*\d", service.get("image", ":1")), service
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            # The run and the token are what a person brings.
            known = source in compose["volumes"] or source == "./run" or (CONTAINERS / source).exists()
            assert known, volume
    build = compose["services"]["server"]["build"]
    assert (CONTAINERS / build["context"] / build["dockerfile"]).is_file()
    names = {name.removeprefix("HEADWATER_").lower() for name in compose["services"]["server"]["environment"]}
    assert names - {"redis_connection"} <= set(Settings.model_fields)


def test_dockerfile_has_known_instructions_and_copies_what_exists() -> None:
    joined = re.sub(r"\\\n\s*", "", (CONTAINERS / "Dockerfile").read_text())
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= set(_INSTRUCTIONS.split())
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert [name for name in line.split()[1:-1] if not (ROOT / name).exists()] == []
    assert lines[-1].startswith("CMD [")
    json.loads(lines[-1].removeprefix("CMD "))


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONTAINERS / "grafana" / "headwater.json").read_text())
    return found


def test_dashboard_asks_for_metrics_and_labels_that_exist() -> None:
    series = {
        f"{family.name}{end}": metric._labelnames
        for metric in {id(each): each for each in Metrics()._registry._names_to_collectors.values()}.values()
        for family in metric.describe()
        for end in SERIES[family.type]
    }
    for panel in dashboard()["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            asked = re.findall(r"(headwater_\w+)(?:\{([^}]*)\})?", target["expr"])
            assert asked, target
            for name, matchers in asked:
                assert name in series, (panel["title"], name)
                assert set(re.findall(r"(\w+)!?=", matchers)) <= set(series[name]), (panel["title"], matchers)


SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def test_dashboard_shows_every_metric() -> None:
    text = json.dumps(dashboard())
    assert [family.name for family in Metrics()._registry.collect() if family.name not in text] == []


def test_dashboard_has_no_two_panels_in_one_place() -> None:
    panels = dashboard()["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(panels)


def test_notebook_runs_and_keeps_no_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "feature_repo" / "data" / "offline" / "pin_embedding_ctr_v1"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for day in ("2024-03-01", "2024-03-02"):
        vectors = pa.array(rng.normal(size=(12, 4)).tolist(), pa.list_(pa.float32()))
        pq.write_table(pa.table({"pin_id": np.arange(12), "embedding": vectors}), folder / f"date={day}.parquet")
    log = tmp_path / "event_log"
    log.mkdir()
    described = {"pin_id": range(12), "title": [f"shoe {pin}" for pin in range(12)], "kind": ["red", "blue"] * 6}
    pq.write_table(pa.table(described), log / "pins.parquet")
    attributes = [{"name": "title", "kind": "categorical"}, {"name": "kind", "kind": "categorical"}]
    (log / "spec.json").write_text(json.dumps({"pin_title": "title", "pin_attributes": attributes}))
    monkeypatch.setenv("HEADWATER_RUN", str(tmp_path))
    matplotlib.use("Agg")
    notebook = json.loads((EXAMPLES / "notebooks" / "explore_embeddings.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    near = names["nearest"](0)
    assert len(near) == 5
    assert {name for name, _ in near} <= {f"shoe {pin}" for pin in range(1, 12)}
    assert names["colour"] == "kind"
    assert -1.0 <= names["moved"].mean() <= 1.0


def test_site_names_every_page_and_only_pages_that_exist() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(site["nav"])))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == {page for page in pages if not page.startswith(("adr/", "examples/"))}
