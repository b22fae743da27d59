"""What is served in the benchmark of routes: a made corpus whose features lie in Redis, or a trained run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contract import RepoManifest, activity_view, join_key
from feature_repo.layout import apply, create_repo, open_store
from feature_repo.release.files import RELEASES
from feature_repo.release.manifest import ReleaseManifest, load_manifest
from feature_repo.versions import Catalogue
from tests.benchmarks.serving_load.made_run import NOW, SURFACE, Size, make_run
from tests.feature_repo.stores.servers import HOST, running
from trainers.data.prepare import daily_views, materialize, static_views
from trainers.progress import SILENT

Keys = npt.NDArray[np.int64]

REDIS = "redis"
KEYS = 5000
"""Users and Pins that are asked about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A run that can be served, and who asks about what."""

    name: str
    run: Path
    manifest: ReleaseManifest
    store: str
    """Kind of the online store, for the reader of a row."""
    users: Keys
    pins: Keys
    surface: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment of the server."""
    repo: Path
    """Feature repo that is read."""
    export_difference: float | None = None
    """Largest difference of an exported program's outputs from its trained model's; none where nothing was trained."""

    @property
    def release_dir(self) -> Path:
        """Folder of the live release."""
        return self.run / RELEASES / self.manifest.release


@contextlib.contextmanager
def made_corpus(folder: Path, size: Size) -> Iterator[Corpus]:
    """Made-up users and Pins, in a Redis-compatible server that lives as long as this."""
    with running(folder / "redis") as port:
        connection = f"{HOST}:{port}"
        os.environ["REDIS_CONNECTION"] = connection
        run = folder / "made"
        (release, *_) = make_run(run, size, REDIS)
        random = np.random.default_rng(2)
        yield Corpus(
            name="made",
            run=run,
            manifest=load_manifest(run / RELEASES / release),
            store=REDIS,
            repo=run / "feature_repo",
            users=random.integers(size.users, size=KEYS),
            pins=random.choice(size.pins, min(KEYS, size.pins), replace=False),
            surface=SURFACE,
            settings={"HEADWATER_AS_OF": NOW.isoformat(), "REDIS_CONNECTION": connection},
        )


@contextlib.contextmanager
def trained_corpus(run: Path, folder: Path, store: str = REDIS) -> Iterator[Corpus]:
    """A finished run's live release.

    Args:
        folder: For a copy of the feature repo, where its online store is replaced.
        store: `redis` puts the run's features into a Redis-compatible server that lives as long as this; `own` leaves
            them in the online store that the run has.

    Raises:
        SystemExit: No release of it is live.
    """
    live = Catalogue.of_repo(run / "feature_repo").pointers().live
    if live is None:
        raise SystemExit(f"--run must have a live release (got {run}, which has none)")
    manifest = load_manifest(run / RELEASES / live)
    random = np.random.default_rng(2)
    with _online(run, folder / f"{run.name}-redis", store) as (name, repo, settings):
        yield Corpus(
            name=RepoManifest.load(run / "feature_repo" / "data").dataset,
            run=run.resolve(),
            manifest=manifest,
            store=name,
            repo=repo,
            users=random.choice(_newest_keys(repo, "user"), KEYS),
            pins=random.choice(_newest_keys(repo, "pin"), KEYS),
            surface=_busiest(manifest),
            settings=settings,
            export_difference=_export_difference(run, live),
        )


@contextlib.contextmanager
def _online(run: Path, folder: Path, store: str) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """Kind of the online store, feature repo, and settings of a server that reads from it."""
    own = (run / "feature_repo").resolve()
    if store != REDIS:
        kind = type(open_store(own)._get_provider().online_store).__module__
        yield "sqlite" if "sqlite" in kind else REDIS, own, {}
        return
    with running(folder / "server") as port:
        connection = f"{HOST}:{port}"
        os.environ["REDIS_CONNECTION"] = connection
        repo = folder / "feature_repo"
        create_repo(repo, RepoManifest.load(own / "data"), REDIS)
        (repo / "data" / "offline").symlink_to(own / "data" / "offline")
        apply(repo)
        _materialize(repo)
        # The catalogue lies in the run's own repo, so the live release is named.
        release = run.resolve() / RELEASES / str(Catalogue.of_repo(own).pointers().live)
        settings = {"HEADWATER_REPO_DIR": str(repo), "HEADWATER_RELEASE_DIR": str(release)}
        yield REDIS, repo, {**settings, "REDIS_CONNECTION": connection}


def _materialize(repo: Path) -> None:
    """Put the newest rows online, as a run does."""
    manifest = RepoManifest.load(repo / "data")
    daily, static = daily_views(manifest.embeddings), static_views(manifest)
    newest = pc.max(_newest_snapshot(repo, "user")["event_timestamp"]).as_py()
    materialize(open_store(repo), daily, static, newest, SILENT)


def _newest_keys(repo: Path, entity: str) -> Keys:
    found: Keys = _newest_snapshot(repo, entity)[join_key(entity)].to_numpy()
    return found


def _newest_snapshot(repo: Path, entity: str) -> pa.Table:
    files = (repo / "data" / "offline" / activity_view(entity)).glob("*.parquet")
    return pq.read_table(max(files), columns=[join_key(entity), "event_timestamp"])


def _export_difference(run: Path, release: str) -> float | None:
    """What the run's export of a release has found; none where it came from elsewhere."""
    file = run / "steps" / "evaluate.json"
    figures = json.loads(file.read_text())["figures"] if file.is_file() else {}
    return float(figures["export_difference"]) if figures.get("release") == release else None


def _busiest(manifest: ReleaseManifest) -> str:
    """The surface with the longest list of popular Pins."""
    return max(manifest.surfaces, key=lambda surface: len(manifest.popular.get(surface, ())))


def body(**content: object) -> str:
    """A request body."""
    return json.dumps(content)
