"""What `status` shows of a run, and what `serve` starts."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from feature_repo.contract import EmbeddingVersion, RepoManifest
from feature_repo.layout import profile_path
from feature_repo.versions import Catalogue, ReleaseRecord, VersionRecord, VersionState
from tests.commands.invoking import invoke
from trainers.commands import serve
from trainers.run_config import RunConfig


def test_status_shows_steps_versions_and_freshness(tmp_path: Path) -> None:
    invoke("ingest", "--run", "a")
    write_repo(tmp_path / "a")
    found = json.loads(invoke("status", "--run", "a", "--json").stdout)
    assert [step["up_to_date"] for step in found["steps"]] == [True] + [False] * 7
    assert found["embedding_versions"] == [{"version": "ctr_v1", "dim": 8, "ttl_hours": 48}]
    assert found["feature_views"][-1] == {
        "view": "pin_embedding_ctr_v1",
        "ttl_hours": 48,
        "num_snapshots": 2,
        "newest": "2026-01-02",
        "days_behind": 3,
    }
    text = invoke("status", "--run", "a").stdout
    assert "newest 2026-01-02, 3 days behind the event log" in text
    assert "features     to run: has not finished yet" in text


def write_repo(run: Path) -> None:
    """Two embedding snapshots, the newer one three days before the end of the event log."""
    manifest = RepoManifest(
        dataset="synthetic",
        labels=("click",),
        conversions=(),
        windows_days=(1,),
        sequence_length=4,
        user_attributes=(),
        pin_attributes=(),
        embeddings=(EmbeddingVersion(model="ctr", version=1, dim=8, ttl_hours=48),),
    )
    data_dir = run / "feature_repo" / "data"
    offline = data_dir / "offline" / "pin_embedding_ctr_v1"
    offline.mkdir(parents=True)
    (data_dir / "manifest.json").write_text(manifest.to_json())
    for day in ("2026-01-01", "2026-01-02"):
        (offline / f"date={day}.parquet").touch()
    (run / "event_log" / "impressions" / "date=2026-01-05").mkdir(parents=True)


def test_status_refuses_a_folder_without_a_run() -> None:
    assert "--run must be the directory of a run (got 'a')" in invoke("status", "--run", "a", code=2).stderr


def test_serve_refuses_a_run_without_a_live_release(tmp_path: Path) -> None:
    assert "--run must be the directory of a run (got 'a')" in invoke("serve", "--run", "a", code=2).stderr
    begin_run(tmp_path / "a")
    told = invoke("serve", "--run", "a", code=2).stderr
    assert "--run must have a live release to serve (got 'a', which has none); run `headwater run --run a`" in told


def begin_run(run: Path) -> Catalogue:
    """A run with a feature repo; gives its catalogue."""
    run.mkdir()
    (run / "run.json").write_text(RunConfig(dataset="synthetic", out=run).to_json())
    (run / "feature_repo" / "data").mkdir(parents=True)
    (run / "feature_repo" / "feature_store.yaml").write_text(profile_path("embedded").read_text())
    return Catalogue.of_repo(run / "feature_repo")


def test_serve_starts_the_factory_on_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(uvicorn, "run", lambda *arguments, **options: calls.append((*arguments, options)))
    monkeypatch.setenv(serve.RUN_VARIABLE, "elsewhere")
    catalogue, author = begin_run(tmp_path / "a"), {"who": "evaluate", "why": "a test"}
    version = VersionRecord(key="ctr_v1", model="ctr", version=1, dim=8, space_id="0" * 12)
    catalogue.create_version(version, **author)
    for before, after in pairwise((VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE)):
        catalogue.move_version("ctr_v1", after, expected=before, **author)
    release = ReleaseRecord(id="r-1", folder="releases/r-1", manifest_sha256="0" * 64, versions={"ctr_v1": "0" * 12})
    catalogue.create_release(release, **author)
    catalogue.promote("r-1", **author)
    invoke("serve", "--run", "a", "--port", "9090", "--workers", "2")
    ((factory, options),) = calls
    assert (factory, options["factory"]) == ("serving.app:create_app", True)
    asked = {name: options[name] for name in ("host", "port", "workers", "log_level")}
    assert asked == {"host": "127.0.0.1", "port": 9090, "workers": 2, "log_level": "info"}
    assert os.environ[serve.RUN_VARIABLE] == str(tmp_path / "a")


def test_serve_refuses_a_port_out_of_range() -> None:
    refused = invoke("serve", "--run", "a", "--port", "70000", code=2)
    assert refused.stderr == "error: port must be in 1..65535 (got 70000); give --port another\n"
