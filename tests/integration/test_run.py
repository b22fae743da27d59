"""A whole run as its user sees it: steps, report, release, and what plain Feast reads back."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from feature_repo.contract import EVENT_TIMESTAMP, RepoManifest, consumer_services, join_key
from feature_repo.declarations import declare
from feature_repo.layout import open_store
from serving.app import create_app
from serving.settings import Settings
from tests.integration.runs import (
    ROOT,
    SYNTHETIC,
    StoppingObserver,
    assert_equal_results,
    headwater,
    results,
    started,
)
from tests.integration.shop_files import Shop
from trainers import pipeline, run_config
from trainers.commands.run import STEP_COMMANDS
from trainers.data.event_log import EventLog
from trainers.execution import StepInterruptedError, execute
from trainers.steps import RunContext

pytestmark = pytest.mark.slow

ARMS = ["none", "user", "pin", "both", "both_domains"]
SERVICE = "ranking__ctr_v1__cvr_v1"


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


def test_second_run_finds_everything_up_to_date(finished_run: Path) -> None:
    markers = {file: file.read_text() for file in (finished_run / "steps").iterdir()}
    again = json.loads(headwater("run", *SYNTHETIC, "--run", finished_run, "--json").stdout)
    assert [(step["name"], step["ran"]) for step in again["steps"]] == [(name, False) for name in STEP_COMMANDS]
    assert {file: file.read_text() for file in (finished_run / "steps").iterdir()} == markers


def test_two_processes_train_and_judge_to_the_same_results_as_one(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for step in ("train", "evaluate"):
        (run / "steps" / f"{step}.json").unlink()
    shutil.rmtree(run / "upstream")
    # A process of its own, as a user's is: workers forked from this one would inherit locks of other tests' threads.
    process = started("run", "--run", str(run), "--threads", "2", "--json")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert next(step["name"] for step in json.loads(output)["steps"] if step["ran"]) == "train"
    folders = ("feature_repo/data/offline", "upstream", "evaluation")
    assert_equal_results(results(finished_run, *folders), results(run, *folders))


def test_run_goes_on_where_it_was_moved_to(finished_run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for item in ("run.json", "steps", "event_log", "feature_repo", "upstream", "evaluation", "releases"):
        (moved / item).symlink_to(finished_run / item)
    found = json.loads(headwater("run", "--run", moved, "--dry-run", "--json").stdout)
    assert [step["name"] for step in found["steps"] if step["runs"]] == ["report"]


def test_report_keeps_to_its_schema(finished_run: Path) -> None:
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    assert [error.message for error in validator.iter_errors(report(finished_run))] == []


def test_report_has_a_row_for_every_arm(finished_run: Path) -> None:
    rows = report(finished_run)["lift"]
    found = [(row["task"], row["inputs"]) for row in rows]
    boosted = [(task, arm) for task in ("ctr", "cvr") for arm in ("none", "both", "both_domains")]
    assert found == [(task, arm) for task in ("ctr", "cvr") for arm in ARMS] + boosted
    assert [row["ranker"] == "LightGBM" for row in rows] == [False] * 10 + [True] * 6
    assert all(0.0 < row["roc_auc"] < 1.0 for row in rows)
    assert [row["inputs"] for row in rows if "roc_auc_lift_pct" not in row] == ["none"] * 4


def test_report_has_the_retrieval_models_that_the_two_tower_is_compared_with(finished_run: Path) -> None:
    rows = report(finished_run)["retrieval"]
    names = ["popularity", "item-kNN", "ALS", "EASE", "upstream ctr_v1 inner product"]
    assert [row["model"].partition(" (")[0] for row in rows[:5]] == names
    assert ["released_lead" in row for row in rows] == [True] * 6 + [False]


def test_report_says_what_was_run(finished_run: Path) -> None:
    found = report(finished_run)
    assert [step["name"] for step in found["steps"]] == [name for name in STEP_COMMANDS if name != "report"]
    assert found["command"].startswith("headwater run --dataset synthetic --seed 1 --seeds 1 --scale 0.05")
    assert found["window"]["test"] == ["2024-01-13T00:00:00Z", "2024-01-15T00:00:00Z"]
    page = (finished_run / "report.html").read_text()
    assert "both domains" in page
    assert "http" not in page.split("<body")[0]


def test_run_ends_with_the_table_the_report_and_lines_to_try(finished_run: Path) -> None:
    lines = (finished_run / "output.txt").read_text().splitlines()
    assert any(line.split()[:2] == ["both", "domains"] for line in lines)
    assert f"Report: {finished_run}/report.html" in lines
    assert sum(line.startswith("curl -s localhost:8080/v1/") for line in lines) == 2


def test_status_shows_a_complete_run(finished_run: Path) -> None:
    found = json.loads(headwater("status", "--run", finished_run, "--json").stdout)
    assert [step["name"] for step in found["steps"] if step["up_to_date"]] == list(STEP_COMMANDS)
    assert [version["version"] for version in found["embedding_versions"]] == ["ctr_v1", "cvr_v1"]
    assert {view["newest"] for view in found["feature_views"]} == {"2024-01-15"}


@pytest.fixture(scope="module")
def client(finished_run: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(run=finished_run))) as client:
        assert client.get("/readyz").status_code == 200
        yield client


def recommend(client: TestClient, status: int = 200, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/recommend", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer if status == 200 else answer["error"]


def test_release_recommends_to_a_user_of_the_run(client: TestClient, finished_run: Path) -> None:
    example = report(finished_run)["example"]
    answer = recommend(client, user_id=example["user_id"], surface=example["surface"], k=10)
    assert (answer["source"], answer["embeddings"]) == ("retrieval", ["ctr_v1", "cvr_v1"])
    assert set(answer["user"]["status"].values()) == {"present"}
    scores = [pin["pctr"] for pin in answer["ranked"]]
    assert len(scores) == 10
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 < pin[name] < 1.0 for pin in answer["ranked"] for name in ("pctr", "pcvr"))


def test_release_knows_a_user_of_the_last_day_alone(client: TestClient) -> None:
    answer = recommend(client, user_id=10**9, surface="home", k=3)
    assert (answer["source"], answer["cold_start"], len(answer["ranked"])) == ("popular", True, 3)


def test_release_answers_all_it_can_score_when_k_is_large(client: TestClient, finished_run: Path) -> None:
    user = report(finished_run)["example"]["user_id"]
    answer = recommend(client, user_id=user, surface="home", k=200, candidates=[1, 2, 3])
    assert (answer["k_available"], len(answer["ranked"])) == (3, 3)


@pytest.mark.parametrize(
    ("body", "field", "remedy"),
    [({"surface": "home", "k": 0}, "k", ""), ({"surface": "attic"}, "surface", "home, related, search")],
)
def test_release_refuses_what_it_cannot_answer(
    client: TestClient, body: dict[str, Any], field: str, remedy: str
) -> None:
    error = recommend(client, 422, user_id=1, **body)
    assert (error["field"], error["value"]) == (field, body[field])
    assert remedy in error["remedy"]


STRANGER = """
import json, sys
import feast
import pandas as pd
repo, service, asked = sys.argv[1], sys.argv[2], json.loads(sys.stdin.read())
store = feast.FeatureStore(repo_path=repo)
features = store.get_feature_service(service)
online = store.get_online_features(features, entity_rows=asked["entities"], full_feature_names=True).to_dict()
rows = pd.DataFrame(asked["rows"])
rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"])
joined = store.get_historical_features(rows, features, full_feature_names=True).to_arrow().to_pylist()
json.dump({"online": online, "historical": joined}, sys.stdout, default=lambda moment: moment.isoformat())
"""


@pytest.fixture(scope="module")
def asked(finished_run: Path) -> dict[str, Any]:
    """Five entities to read online; forty impressions, of the first days too, to join to their history."""
    log = EventLog(finished_run / "event_log")
    window = log.spec.window
    every = (
        log.impressions(window.features_from, window.until).select(["user_id", "pin_id", EVENT_TIMESTAMP]).to_pylist()
    )
    rows = every[:: len(every) // 40]
    entities = [{"user_id": row["user_id"], "pin_id": row["pin_id"]} for row in every[-5:]]
    return {"entities": entities, "rows": [{**row, EVENT_TIMESTAMP: str(row[EVENT_TIMESTAMP])} for row in rows]}


@pytest.fixture(scope="module")
def read_back(finished_run: Path, asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process that knows nothing but Feast reads from the run's repo."""
    command = [sys.executable, "-c", STRANGER, str(finished_run / "feature_repo"), SERVICE]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, input=json.dumps(asked), cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


class Offline:
    """Every row of a run's offline store, found again without any join."""

    def __init__(self, run: Path) -> None:
        self.manifest = RepoManifest.load(run / "feature_repo" / "data")
        self.views = consumer_services(self.manifest)[SERVICE].views
        folder = run / "feature_repo" / "data" / "offline"
        self.rows = {
            view: [row for file in sorted((folder / view).iterdir()) for row in read(file)] for view in self.views
        }

    def newest(self, view: str, keys: dict[str, Any], moment: datetime | None) -> dict[str, Any]:
        """The newest row of an entity that may be used at a moment and is not outside max age; none at all: empty."""
        key = join_key(view.split("_")[0])
        usable = [
            row
            for row in self.rows[view]
            if row[key] == keys[key]
            and (moment is None or moment - self.max_age(view) <= row[EVENT_TIMESTAMP] <= moment)
        ]
        return max(usable, key=lambda row: row[EVENT_TIMESTAMP], default={})

    def max_age(self, view: str) -> timedelta:
        """TTL of a view; attributes never age."""
        ttl_hours = {f"_embedding_{each.key}": each.ttl_hours for each in self.manifest.embeddings}
        ttl_hours["_activity"] = self.manifest.activity_ttl_hours
        return timedelta(hours=next((ttl for suffix, ttl in ttl_hours.items() if view.endswith(suffix)), 10**5))


def read(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(file).read().to_pylist()
    return rows


def test_plain_feast_reads_the_newest_offline_rows_online(
    finished_run: Path, asked: dict[str, Any], read_back: dict[str, Any]
) -> None:
    offline, online = Offline(finished_run), read_back["online"]
    columns = [name for name in online if "__" in name]
    assert {name.split("__")[0] for name in columns} == set(offline.views)
    for place, keys in enumerate(asked["entities"]):
        for column in columns:
            view, feature = column.split("__")
            assert online[column][place] == plain(offline.newest(view, keys, None)[feature]), column


def test_plain_feast_joins_offline_rows_point_in_time(
    finished_run: Path, asked: dict[str, Any], read_back: dict[str, Any]
) -> None:
    offline = Offline(finished_run)
    assert len(read_back["historical"]) == len(asked["rows"])
    for row in read_back["historical"]:
        moment = datetime.fromisoformat(row[EVENT_TIMESTAMP])
        for column in (name for name in row if "__" in name):
            view, feature = column.split("__")
            assert row[column] == plain(offline.newest(view, row, moment).get(feature)), column
    assert {row["user_embedding_ctr_v1__embedding"] is None for row in read_back["historical"]} == {True, False}


def test_same_seed_gives_the_same_event_log_and_features(finished_run: Path, tmp_path: Path) -> None:
    headwater("ingest", *SYNTHETIC, "--run", tmp_path)
    headwater("features", "--run", tmp_path)
    folders = ("event_log", "feature_repo/data/offline/user_activity", "feature_repo/data/offline/pin_activity")
    assert_equal_results(results(finished_run, *folders), results(tmp_path, *folders))


def test_other_options_train_from_the_beginning(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = run_config.load(run)
    assert before is not None
    config = dataclasses.replace(before, seed=2)
    with pytest.raises(StepInterruptedError):
        execute(pipeline.steps(config), RunContext(config=config), StoppingObserver("train ctr", None))
    assert sorted(path.name for path in (run / "upstream").iterdir()) == [
        "ctr_v1",
        "cvr_v1",
        "entities",
        "made_from.json",
    ]
    assert list((run / "feature_repo" / "data" / "offline").glob("*_embedding_*")) == []
    database = sqlite3.connect(run / "feature_repo" / "data" / "online_store.db")
    assert database.execute("SELECT count(*) FROM headwater_user_activity").fetchone() == (0,)


def test_another_dataset_in_the_same_run_leaves_nothing_of_the_one_before_registered(
    finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shop = Shop(tmp_path / "shop").declare(user_attributes=None)
    for command in ("ingest", "features", "apply"):
        headwater(command, "--run", run, "--dataset", shop.yaml, "--scale", "1")
    store = open_store(run / "feature_repo")
    declared = set(declare(RepoManifest.load(run / "feature_repo" / "data")))
    registered = {each.name for each in (*store.list_feature_views(), *store.list_feature_services())}
    assert registered | {"user", "pin"} == declared
    assert "user_attributes" not in registered
    assert [view.name for view in store.list_feature_views() if view.materialization_intervals] == []
