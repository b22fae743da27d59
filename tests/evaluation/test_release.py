"""A release on the small repo: the server's contract accepts it, loads it, and gets the trainer's scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contract import service_name
from feature_repo.encoding import InputSpec, encode
from feature_repo.release.manifest import ReleaseManifest
from serving.onnx_model import load_model
from serving.releases import Release, load_release
from tests.data.small_repo import SmallRepo
from tests.evaluation.jobs import ranker_job, retrieval_job
from trainers.data.frames import point_in_time_frame
from trainers.data.ranking_data import renamed_vectors
from trainers.data.retrieval_data import RetrievalReader
from trainers.evaluation import release as exporting
from trainers.evaluation.arms import Arm, RankerJob, collected, run_seed
from trainers.evaluation.figures import TestRows, probabilities_of
from trainers.evaluation.onnx_export import ExportError
from trainers.evaluation.release import ReleaseParts, write_release
from trainers.evaluation.retrieval import two_tower
from trainers.ranking.train import predict
from trainers.retrieval.train import embed

SPACES = {"ctr_v1": "c" * 12, "cvr_v1": "d" * 12}


@dataclass(frozen=True)
class Written:
    """A release, what it was made from, and what was said about it."""

    folder: Path
    parts: ReleaseParts
    figures: dict[str, object]
    loaded: Release


def parts_of(repo: SmallRepo) -> ReleaseParts:
    """A CTR ranker and a two-tower model of both domains; a release without a CVR ranker."""
    versions = repo.manifest.embeddings
    job = replace(ranker_job(repo), seeds=(1,))
    arm = Arm(inputs="both_domains", versions=versions)
    retrieval = retrieval_job(repo)
    return ReleaseParts(
        rankers={"pctr": (job, collected(job, arm, [run_seed(job, arm, 1)]))},
        retrieval=two_tower(retrieval, "two-tower, both domains", versions),
        retrieval_job=retrieval,
        log=repo.log,
        candidates=lambda encoder: candidate_reader(repo, encoder),
        versions=versions,
        spaces=SPACES,
        services={name: service_name(name, versions) for name in ("retrieval", "ranking")},
        commit="abc",
        seed=1,
        cutoff=repo.spec.window.until,
        figures={"pctr_roc_auc": 0.75},
    )


def candidate_reader(repo: SmallRepo, encoder: InputSpec) -> RetrievalReader:
    """Reader of Pin features with the inputs of a candidate tower."""
    service = "retrieval__ctr_v1__cvr_v1"
    return RetrievalReader(repo.log, repo.store, repo.offline, service, InputSpec(side="user"), encoder)


@pytest.fixture(scope="module")
def written(small_repo: SmallRepo, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A release in an otherwise empty folder of releases."""
    releases, parts = tmp_path_factory.mktemp("run") / "releases", parts_of(small_repo)
    manifest, figures = write_release(parts, releases)
    folder = releases / manifest.release
    return Written(folder, parts, figures, load_release(folder, threads=1))


def test_release_holds_what_its_manifest_names_and_nothing_else(written: Written) -> None:
    manifest = ReleaseManifest.model_validate_json((written.folder / "manifest.json").read_bytes())
    files = {file.name for file in written.folder.iterdir()}
    programs = {"pctr.onnx", "query_tower.onnx", "candidate_tower.onnx"}
    assert files == {"manifest.json", "pins.faiss", *programs} == {"manifest.json", *manifest.sha256}
    assert [path.name for path in written.folder.parent.iterdir()] == [manifest.release]
    assert written.figures["release"] == manifest.release
    assert written.figures["index_pins"] == manifest.retrieval.num_pins == 30


def test_release_states_how_its_probabilities_were_distributed_on_the_test_days(written: Written) -> None:
    figures = written.loaded.manifest.figures
    assert set(figures) == {"pctr_roc_auc", "pctr_p10", "pctr_p50", "pctr_p90", "pctr_mean", "pctr_rate"}
    job, result = written.parts.rankers["pctr"]
    predicted = probabilities_of(job, result, TestRows(job))[0]
    assert figures["pctr_mean"] == pytest.approx(predicted.mean())
    assert figures["pctr_p10"] < figures["pctr_p50"] < figures["pctr_p90"]
    assert figures["pctr_rate"] == pytest.approx(TestRows(job).labels.mean())


def test_release_names_versions_services_and_surfaces_it_was_trained_with(written: Written) -> None:
    manifest = written.loaded.manifest
    assert manifest.spaces() == SPACES
    assert (manifest.format, manifest.parent, manifest.figures["pctr_roc_auc"]) == (2, None, 0.75)
    assert (manifest.services.retrieval, manifest.services.ranking) == (
        "retrieval__ctr_v1__cvr_v1",
        "ranking__ctr_v1__cvr_v1",
    )
    assert manifest.surfaces == ("home", "related", "search")
    assert (manifest.rankers.pcvr, manifest.pin_title) == (None, "category")
    assert manifest.data_cutoff == written.parts.cutoff


def test_released_ranker_scores_online_features_as_the_trainer_does(written: Written, small_repo: SmallRepo) -> None:
    job, result = written.parts.rankers["pctr"]
    row = int(job.split.test[-1])
    moment = small_repo.log.impressions(small_repo.spec.window.test_from, small_repo.spec.window.until)
    last = moment.slice(moment.num_rows - 1).select(["user_id", "pin_id", "event_timestamp", "surface"])
    assert last["user_id"].to_pylist() == [int(job.data.user_ids[row])]
    frame = point_in_time_frame(small_repo.store, last, "ranking__ctr_v1__cvr_v1")
    when, surface = last["event_timestamp"][0].as_py(), last["surface"][0].as_py()
    scores = written.loaded.ranker.score(frame, frame, surface, when)

    examples = renamed_vectors(job.data.pin, result.pin, renamed_vectors(job.data.user, result.user, job.data.examples))
    logit = float(predict(result.ranker, examples.take(np.array([row])))[0, 0])
    slope, intercept = written.loaded.manifest.rankers.pctr.calibration_on(surface)
    assert scores.pctr[0] == pytest.approx(1.0 / (1.0 + np.exp(-(slope * logit + intercept))), rel=1e-4)


def test_released_index_ranks_as_the_evaluation_does(written: Written, small_repo: SmallRepo) -> None:
    parts, until = written.parts, small_repo.spec.window.until
    keys = np.array([5, 6, 7])
    rows = pa.table(
        {
            "user_id": keys,
            "pin_id": pa.nulls(3, pa.int64()),
            "event_timestamp": pa.array([until + small_repo.spec.publish_delay] * 3, pa.timestamp("us", tz="UTC")),
        }
    )
    frame = point_in_time_frame(small_repo.store, rows, "retrieval__ctr_v1__cvr_v1")
    found = [written.loaded.retriever.retrieve(frame.slice(i, 1), 30, ()).pin_ids for i in range(3)]

    arm, job = parts.retrieval, parts.retrieval_job
    users = renamed_vectors(job.data.user, arm.user, small_repo.reader.examples("user", keys, until))
    pins = renamed_vectors(job.data.pin, arm.pin, small_repo.reader.examples("pin", np.arange(30), until))
    popularity = small_repo.reader.log_popularity(np.arange(30), until, arm.prior.days)
    scores = embed(arm.model, "user", users) @ embed(arm.model, "pin", pins).T / arm.temperature
    scores += arm.prior.weight * popularity
    for row, pin_ids in zip(scores, found, strict=True):
        assert sorted(pin_ids) == list(range(30))
        assert (np.diff(row[pin_ids]) <= 1e-4).all()


def test_release_encoders_are_those_of_training(written: Written) -> None:
    raw = json.loads((written.folder / "manifest.json").read_text())
    names = ["candidate.pin", "query.user", "ranking.context", "ranking.pin", "ranking.user"]
    assert sorted(raw["encoders"]) == names
    loaded = written.loaded.manifest.encoders
    assert loaded.ranking_user == written.parts.rankers["pctr"][1].user
    assert loaded.query_user == written.parts.retrieval.user
    context = encode(
        loaded.ranking_context, pa.table({"surface": ["home", "elsewhere"], "hour": [0, 1], "weekday": [0, 6]})
    )
    assert context["context_categorical"].tolist() == [[1, 1, 1], [0, 2, 7]]


def test_released_candidate_tower_gives_the_indexed_vectors_from_features_alone(
    written: Written, small_repo: SmallRepo
) -> None:
    """Whoever has the manifest, the program and Feast can make the index of any day."""
    until, manifest = small_repo.spec.window.until, written.loaded.manifest
    keys = np.array([3, 4, 29])
    rows = pa.table(
        {
            "user_id": pa.nulls(3, pa.int64()),
            "pin_id": keys,
            "event_timestamp": pa.array([until + small_repo.spec.publish_delay] * 3, pa.timestamp("us", tz="UTC")),
        }
    )
    frame = point_in_time_frame(small_repo.store, rows, manifest.services.retrieval)
    tower = load_model(written.folder / manifest.retrieval.candidate_model, "candidate", threads=1)
    vectors = tower.run(encode(manifest.encoders.candidate_pin, frame))
    indexed = np.stack([written.loaded.retriever.index.reconstruct(int(key)) for key in keys])
    assert vectors == pytest.approx(indexed[:, :-1], abs=1e-6)


def test_release_of_the_same_parts_has_the_same_name_and_leaves_the_folder_as_it_is(written: Written) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in written.folder.iterdir()}
    manifest, _ = write_release(written.parts, written.folder.parent)
    assert manifest.release == written.folder.name
    assert {file.name: file.stat().st_mtime_ns for file in written.folder.iterdir()} == before
    assert [path.name for path in written.folder.parent.iterdir()] == [manifest.release]


def test_release_that_cannot_be_exported_leaves_nothing(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise ExportError("it differs")

    monkeypatch.setattr(exporting, "export", fail)
    with pytest.raises(ExportError):
        write_release(written.parts, tmp_path)
    assert list(tmp_path.iterdir()) == []


def sampled(job: RankerJob, negative: list[float], positive: float) -> RankerJob:
    """The job with sampling rates: the first negatives of training get these, the others the last of them."""
    rows = job.split.train
    labels = job.data.examples.labels[rows, 0]
    rates = np.ones(len(job.data.sampling_rate))
    rates[rows[labels == 1.0]] = positive
    rates[rows[labels == 0.0]] = np.resize(negative, int((labels == 0.0).sum()))
    return replace(job, data=replace(job.data, sampling_rate=rates))


@pytest.mark.parametrize(
    ("negative", "positive", "factor"),
    [
        ([1.0], 1.0, 1.0),
        ([0.25], 1.0, 0.25),
        # Kept alike, both classes keep their proportion.
        ([0.25], 0.25, 1.0),
        ([0.25], 0.5, 0.5),
    ],
)
def test_sampling_shift_is_the_log_of_the_odds_ratio(
    small_repo: SmallRepo, negative: list[float], positive: float, factor: float
) -> None:
    job = sampled(ranker_job(small_repo), negative, positive)
    assert exporting._sampling_shift(job) == pytest.approx(np.log(factor), abs=1e-6)


def test_share_kept_counts_what_each_row_stands_for() -> None:
    # One row stands for itself, one for four shown: two kept of five.
    assert exporting._share_kept(np.array([1.0, 0.25])) == pytest.approx(0.4)
    assert exporting._share_kept(np.empty(0)) == 1.0


def test_ranker_manifest_shifts_the_intercepts_of_the_ctr_task_alone(written: Written) -> None:
    job, result = written.parts.rankers["pctr"]
    plain = exporting._ranker_manifest("pctr", job, result)["calibration"]
    quarter = exporting._ranker_manifest("pctr", sampled(job, [0.25], 1.0), result)["calibration"]
    for surface, (slope, intercept) in plain.items():
        assert quarter[surface] == pytest.approx([slope, intercept + np.log(0.25)])
    other = replace(sampled(job, [0.25], 1.0), spec=job.spec.model_copy(update={"ctr_task": "purchase"}))
    assert exporting._ranker_manifest("pctr", other, result)["calibration"] == plain
