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

from feature_repo.contract import RepoManifest, activity_view, join_key
from feature_repo.layout import open_store
from feature_repo.release.files import RELEASES
from feature_repo.release.manifest import ReleaseManifest, load_manifest
from feature_repo.versions import Catalogue
from tests.benchmarks.serving_load.made_run import NOW, SURFACE, Size, make_run
from tests.feature_repo.stores.servers import HOST, running

Keys = npt.NDArray[np.int64]

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
        (release, *_) = make_run(run, size, "redis")
        random = np.random.default_rng(2)
        yield Corpus(
            name="made",
            run=run,
            manifest=load_manifest(run / RELEASES / release),
            store="redis",
            users=random.integers(size.users, size=KEYS),
            pins=random.choice(size.pins, min(KEYS, size.pins), replace=False),
            surface=SURFACE,
            settings={"HEADWATER_AS_OF": NOW.isoformat(), "REDIS_CONNECTION": connection},
        )


def trained_corpus(run: Path) -> Corpus:
    """A finished run, as it is.

    Raises:
        SystemExit: No release of it is live.
    """
    live = Catalogue.of_repo(run / "feature_repo").pointers().live
    if live is None:
        raise SystemExit(f"--run must have a live release (got {run}, which has none)")
    manifest = load_manifest(run / RELEASES / live)
    random = np.random.default_rng(2)
    return Corpus(
        name=RepoManifest.load(run / "feature_repo" / "data").dataset,
        run=run.resolve(),
        manifest=manifest,
        store="sqlite" if "sqlite" in type(_online(run)).__module__ else "redis",
        users=random.choice(_newest_keys(run, "user"), KEYS),
        pins=random.choice(_newest_keys(run, "pin"), KEYS),
        surface=_busiest(manifest),
    )


def _online(run: Path) -> object:
    return open_store(run / "feature_repo")._get_provider().online_store


def _newest_keys(run: Path, entity: str) -> Keys:
    import pyarrow.parquet as pq

    files = (run / "feature_repo" / "data" / "offline" / activity_view(entity)).glob("*.parquet")
    found: Keys = pq.read_table(max(files), columns=[join_key(entity)])[join_key(entity)].to_numpy()
    return found


def _busiest(manifest: ReleaseManifest) -> str:
    """The surface with the longest list of popular Pins."""
    return max(manifest.surfaces, key=lambda surface: len(manifest.popular.get(surface, ())))


def body(**content: object) -> str:
    """A request body."""
    return json.dumps(content)
