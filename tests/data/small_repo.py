"""A real Feast repo of a hundred generated users, with hand-made embeddings in place of trained ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from feature_repo.contract import RepoManifest, join_key
from feature_repo.layout import apply, create_repo, open_store
from trainers.data.activity import ActivityBuilder, ActivityConfig
from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.adapters.synthetic import Synthetic
from trainers.data.attributes import write_attributes
from trainers.data.dataset import DatasetSpec
from trainers.data.event_log import EventLog, ingest, log_progress
from trainers.data.manifest import repo_manifest
from trainers.data.ranking_data import RankingData, read_ranking_data
from trainers.data.retrieval_data import RetrievalReader
from trainers.progress import SilentProgress
from trainers.recipes import RunRecipe, tiny
from trainers.upstream.publish import PublishPlan, publish
from trainers.upstream.vector_files import vector_column
from trainers.upstream.walk import daily_file

OPTIONS = AdapterOptions(seed=1, num_users=100, num_pins=30, num_days=10)
UNKNOWN_USER, UNKNOWN_PIN = 0, 0
"""Entities without embeddings."""


@dataclass(frozen=True)
class SmallRepo:
    """Everything between the event log and the models; tests only read it."""

    folder: Path

    @cached_property
    def log(self) -> EventLog:
        """The event log."""
        return EventLog(self.folder / "event_log")

    @property
    def spec(self) -> DatasetSpec:
        """The dataset."""
        return self.log.spec

    @property
    def recipe(self) -> RunRecipe:
        """The recipe that sizes it."""
        return tiny()

    @cached_property
    def manifest(self) -> RepoManifest:
        """The feature repo's manifest."""
        return repo_manifest(self.spec, self.recipe)

    @property
    def offline(self) -> Path:
        """Offline store folder."""
        return self.folder / "feature_repo" / "data" / "offline"

    @cached_property
    def store(self) -> FeatureStore:
        """Feast's client."""
        return open_store(self.folder / "feature_repo")

    @cached_property
    def data(self) -> RankingData:
        """Downstream rows of the training and test days."""
        return read_ranking_data(self.log, self.store, self.manifest, 256, SilentProgress())

    @cached_property
    def reader(self) -> RetrievalReader:
        """Reader of retrieval periods."""
        service = "retrieval__ctr_v1__cvr_v1"
        return RetrievalReader(self.log, self.store, self.offline, service, self.data.user, self.data.pin)


def build(folder: Path) -> SmallRepo:
    """Generate, ingest, compute features, publish embeddings and apply."""
    staging = folder / "staging"
    staging.mkdir(parents=True)
    Synthetic().stage(staging, OPTIONS, log_progress)
    ingest(Synthetic().spec(OPTIONS), staging, folder / "event_log", now=datetime.now(UTC))
    repo = SmallRepo(folder)
    settings = ActivityConfig(
        event_log=repo.log.path,
        offline=repo.offline,
        state=folder / "state",
        manifest=repo.manifest,
        publish_delay=repo.spec.publish_delay,
        memory_limit="256MB",
        threads=1,
    )
    written = datetime(2024, 3, 1, tzinfo=UTC)
    ActivityBuilder(settings).build(repo.spec.cutoffs(), created_timestamp=written)
    write_attributes(repo.log.path, repo.offline, repo.manifest, created_timestamp=written)
    _publish(repo)
    create_repo(folder / "feature_repo", repo.manifest)
    apply(folder / "feature_repo")
    return repo


def _publish(repo: SmallRepo) -> None:
    first = repo.spec.window.train_from - timedelta(days=1)
    cutoffs = [cutoff for cutoff in repo.spec.cutoffs() if cutoff >= first]
    for number, version in enumerate(repo.manifest.embeddings):
        random = np.random.default_rng(number)
        daily = repo.folder / "upstream" / version.key
        for entity, count in (("user", OPTIONS.num_users), ("pin", OPTIONS.num_pins)):
            for cutoff in cutoffs:
                vectors = random.normal(size=(count - 1, version.dim)).astype(np.float32)
                table = pa.table({join_key(entity): np.arange(1, count), "embedding": vector_column(vectors)})
                file = daily_file(daily, entity, cutoff)
                file.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table, file)
        plan = PublishPlan(
            version=version,
            daily=daily,
            offline=repo.offline,
            cutoffs=cutoffs,
            publish_delay=repo.spec.publish_delay,
            average_weight=0.8,
        )
        publish(plan, SilentProgress())
