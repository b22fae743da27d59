"""The examples that other teams copy: what they import, what they name, and that the notebook runs."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml

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
    ],
)
def test_examples_import_nothing_of_ours(name: str, allowed: set[str]) -> None:
    assert imported(EXAMPLES / name) == allowed


def test_dag_calls_commands_and_options_that_exist() -> None:
    text = (EXAMPLES / "airflow" / "headwater_refresh.py").read_text()
    tree = ast.parse(text)
    assert re.search(r'schedule="([\d*]+ ){4}[\d*]+"', text)
    lines = [
        ast.unparse(word.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for word in call.keywords
        if word.arg == "bash_command"
    ]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in lines:
        words = shlex.split(line.removeprefix("f").strip("'\"").replace("{COMMAND}", "headwater"))
        options = {option for parameter in commands[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
    assert len(lines) == 2


def test_dag_runs_one_night_at_a_time_and_retries() -> None:
    tree = ast.parse((EXAMPLES / "airflow" / "headwater_refresh.py").read_text())
    (dag,) = (each for each in ast.walk(tree) if isinstance(each, ast.Call) and ast.unparse(each.func) == "DAG")
    given = {word.arg: word.value for word in dag.keywords}
    assert ast.literal_eval(given["max_active_runs"]) == 1
    assert ast.literal_eval(given["catchup"]) is False
    assert "'retries': 4" in ast.unparse(given["default_args"])


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
    monkeypatch.setenv("HEADWATER_RUN", str(tmp_path))
    notebook = json.loads((EXAMPLES / "notebooks" / "explore_embeddings.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(names["nearest"](0)) == 5
    assert -1.0 <= names["moved"].mean() <= 1.0


def test_site_names_every_page_and_only_pages_that_exist() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(site["nav"])))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == {page for page in pages if not page.startswith(("adr/", "examples/"))}
