"""The tiny run with the same rows offline as online, and an event log, so that what it serves can be trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.serving.tiny_run import NOW, build, feature_frames
from trainers.data.dataset import Attribute, DatasetSpec, Task, Window

SPEC = DatasetSpec(
    name="tiny",
    title="Tiny",
    impression="a Pin that was shown",
    click="a click",
    labels=("click", "like"),
    tasks=(Task(name="click", label="click", domain="engagement"),),
    ctr_task="click",
    user_attributes=(Attribute(name="segment", kind="categorical"),),
    pin_attributes=(
        Attribute(name="title", kind="categorical"),
        Attribute(name="price", kind="dense", type="float"),
    ),
    pin_title="title",
    window=Window(
        features_from=NOW - timedelta(days=2),
        train_from=NOW - timedelta(days=1),
        test_from=NOW,
        until=NOW + timedelta(days=1),
    ),
)
_MOMENT = pa.timestamp("us", tz="UTC")
_TYPES = {"embedding": pa.list_(pa.float32()), "price": pa.float32()}


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; not to be changed."""
    run = build(tmp_path_factory.mktemp("logged"))
    (run / "run.json").write_text("{}")
    for view, frame in feature_frames().items():
        write_offline(run, view, frame)
    _write_event_log(run / "event_log")
    return run


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture
def serve(run: Path) -> Callable[..., None]:
    """Serve requests from the run, with everything logged."""

    def answer(*requests: dict[str, Any]) -> None:
        with TestClient(create_app(Settings(run=run, as_of=NOW, threads=1, request_log=1.0))) as client:
            for number, request in enumerate(requests):
                body = {"surface": "1", "k": 3} | request
                answer = client.post("/v1/recommend", json=body, headers={"x-request-id": f"r{number}"})
                assert answer.status_code == 200, answer.text

    return answer


def write_offline(run: Path, view: str, frame: Any) -> None:
    """Rows of a view in the offline store, as a snapshot of the day before."""
    folder = run / "feature_repo" / "data" / "offline" / view
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for place, field in enumerate(table.schema):
        kind = _MOMENT if pa.types.is_timestamp(field.type) else _TYPES.get(field.name)
        if kind is not None:
            table = table.set_column(place, field.name, table[field.name].cast(kind))
    pq.write_table(table, folder / f"date={NOW - timedelta(days=1):%Y-%m-%d}.parquet")


def _write_event_log(folder: Path) -> None:
    folder.mkdir()
    (folder / "spec.json").write_text(SPEC.model_dump_json())
    frames = feature_frames()
    for entity, view in (("users", "user_attributes"), ("pins", "pin_attributes")):
        table = pa.Table.from_pandas(frames[view].drop(columns="created_timestamp"), preserve_index=False)
        place = table.schema.get_field_index("event_timestamp")
        table = table.set_column(place, "event_timestamp", table["event_timestamp"].cast(_MOMENT))
        pq.write_table(table, folder / f"{entity}.parquet")
