"""New versions beside old ones: their days know nothing of the future, and older consumers are fed through them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.contract import ENTITIES
from feature_repo.layout import open_store
from feature_repo.versions import ReleaseRecord, VersionState
from tests.integration.runs import assert_equal_results, headwater, results
from tests.life.shop import FIRST, UNTIL, Shop
from trainers.life import walked_days
from trainers.life.backfill import backfill
from trainers.life.day_check import published_frame
from trainers.life.home import Home, embedding_version
from trainers.life.new_version import create_version
from trainers.life.refresh import refresh
from trainers.life.served_through import serve_through
from trainers.life.version_plan import NewVersion
from trainers.progress import SILENT
from trainers.upstream.aggregate import moving_average
from trainers.upstream.compatibility import BackwardMap

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def compatible(
    copied: Callable[[Path], tuple[Home, Shop]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Home, Shop]:
    """A run with a version 2 that keeps a map to version 1; tests only read it."""
    home, shop = copied(tmp_path_factory.mktemp("compatible"))
    create_version(home, NewVersion(model="ctr", compatible_with="ctr_v1"), SILENT)
    return home, shop


def test_version_from_scratch_becomes_a_candidate_in_a_space_of_its_own(home_and_shop: tuple[Home, Shop]) -> None:
    home, _ = home_and_shop
    found = json.loads(
        headwater("version", "create", "--run", home.run, "--model", "cvr", "--from-scratch", "--json", "-q").stdout
    )
    assert (found["version"]["key"], found["version"]["state"], found["days"]) == ("cvr_v2", "candidate", 6)
    record, older = home.catalogue.version("cvr_v2"), home.catalogue.version("cvr_v1")
    assert (record.parents, record.seed, record.alignment) == ((), 2, "procrustes")
    assert record.space_id not in (None, older.space_id)
    assert [day.cutoff for day in home.catalogue.days("cvr_v2")] == [
        day.cutoff for day in home.catalogue.days("cvr_v1")
    ]
    store = open_store(home.repo_dir)
    online = store.get_online_features(["pin_embedding_cvr_v2:embedding"], [{"pin_id": 1}]).to_dict()
    newest = home.snapshot(embedding_version(record), "pin", UNTIL)
    keys, vectors = _vectors(newest, record.dim)
    assert online["embedding"] == [pytest.approx(vectors[keys.tolist().index(1)].tolist())]
    assert "ranking__ctr_v1__cvr_v2" in {service.name for service in store.list_feature_services()}
    assert not (home.folder("cvr_v2") / "weights").exists()


def test_version_with_the_same_seed_is_the_version_before_again(
    home_and_shop: tuple[Home, Shop],
) -> None:
    home, _ = home_and_shop
    create_version(home, NewVersion(model="ctr", seed=1), SILENT)
    assert home.catalogue.version("ctr_v2").space_id == home.catalogue.version("ctr_v1").space_id
    one, other = (results(home.folder(key), "daily") for key in ("ctr_v1", "ctr_v2"))
    assert one
    assert one == other


def test_creation_goes_on_where_it_was_stopped(
    home_and_shop: tuple[Home, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = home_and_shop

    def stop(*arguments: object, **options: object) -> None:
        del arguments, options
        raise KeyboardInterrupt

    monkeypatch.setattr(walked_days, "write_embeddings", stop)
    with pytest.raises(KeyboardInterrupt):
        create_version(home, NewVersion(model="ctr"), SILENT)
    assert home.catalogue.version("ctr_v2").state == VersionState.TRAINING
    with pytest.raises(ValueError, match="version ctr_v2 must be finished before another of ctr is begun"):
        create_version(home, NewVersion(model="ctr", compatible_with="ctr_v1"), SILENT)
    monkeypatch.undo()
    record, figures = create_version(home, NewVersion(model="ctr"), SILENT)
    assert (record.key, record.state, figures["days"]) == ("ctr_v2", VersionState.CANDIDATE, 6)


def test_compatible_version_is_read_in_the_space_of_the_older_one(compatible: tuple[Home, Shop]) -> None:
    home, _ = compatible
    record = home.catalogue.version("ctr_v2")
    assert (record.alignment, record.parents) == ("backward_compatible", ("ctr_v1",))
    back = BackwardMap.load(home.folder("ctr_v2") / "maps" / "ctr_v1.safetensors")
    newer = published_frame(home, record, UNTIL)
    older = published_frame(home, home.catalogue.version("ctr_v1"), UNTIL)
    for entity in ENTITIES:
        assert newer[entity][0].tolist() == older[entity][0].tolist()
        mapped, theirs = back.compatible(newer[entity][1]), older[entity][1]
        # Around their means, or what all entities have in common would make strangers alike.
        shifted = [_mean_cosine(_centred(mapped), np.roll(_centred(theirs), k, axis=0)) for k in range(20)]
        assert np.argmax(shifted) == 0


def test_refresh_serves_a_superseded_version_through_the_newer_one(
    home_and_shop: tuple[Home, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, shop = home_and_shop
    create_version(home, NewVersion(model="ctr", compatible_with="ctr_v1"), SILENT)
    with pytest.raises(ValueError, match=r"must name a superseded version \(got ctr_v1, which is candidate\)"):
        serve_through(home, "ctr_v1", "ctr_v2")
    promote(home, "r-000000000001", "ctr_v1")
    promote(home, "r-000000000002", "ctr_v2")
    feed = ("version", "feed", "--run", home.run, "--version", "ctr_v1", "--through", "ctr_v2")
    assert headwater(*feed).stdout == "ctr_v1 is served through ctr_v2\n"
    shop.show(8)
    # Its releases have no models that an index could be made with.
    monkeypatch.setattr("trainers.life.day.release_of_the_day", lambda *_, **__: home.catalogue.releases()[-1])
    (outcome,) = refresh(home, date(2024, 1, 9), SILENT)
    assert set(outcome.versions) == {"ctr_v1", "ctr_v2", "cvr_v1"}
    back = BackwardMap.load(home.folder("ctr_v2") / "maps" / "ctr_v1.safetensors")
    newer = published_frame(home, home.catalogue.version("ctr_v2"), UNTIL + DAY)
    record = home.catalogue.version("ctr_v1")
    for entity in ENTITIES:
        past, now = (
            _vectors(home.snapshot(embedding_version(record), entity, cutoff), record.dim)
            for cutoff in (UNTIL, UNTIL + DAY)
        )
        expected = moving_average(past, (newer[entity][0], back.compatible(newer[entity][1])), 0.8)
        assert np.array_equal(now[0], expected[0])
        assert np.array_equal(now[1], expected[1])


def test_backfilled_days_are_those_that_the_walk_went_through(home_and_shop: tuple[Home, Shop]) -> None:
    home, _ = home_and_shop
    first = home.catalogue.days("ctr_v1")[0].cutoff
    assert first == FIRST + 2 * DAY
    # A walk that was stopped kept the weights of other days.
    out = home.folder("ctr_v1") / "backfill"
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes(b"of another day")
    period = {"period": ["2024-01-03", "2024-01-03"], "cutoffs": ["2024-01-03T00:00:00+00:00"]}
    (out / "period.json").write_text(json.dumps(period))
    found = json.loads(
        headwater(
            "backfill", "--run", home.run, "--version", "ctr_v1", "--from", "2024-01-02", "--to", "2024-01-02", "--json"
        ).stdout
    )
    assert found["days"] == 1
    days = home.catalogue.days("ctr_v1")
    assert (days[0].cutoff, days[0].state) == (FIRST + DAY, "visible")
    assert backfill(home, "ctr_v1", date(2024, 1, 2), date(2024, 1, 3), SILENT) == {"days": 0}
    record = home.catalogue.version("ctr_v1")
    raw = published_frame(home, record, FIRST + DAY)
    snapshot = _vectors(home.snapshot(embedding_version(record), "user", FIRST + DAY), record.dim)
    np.testing.assert_allclose(snapshot[1], raw["user"][1], atol=1e-6)
    assert not (home.folder("ctr_v1") / "backfill").exists()


def test_backfilled_day_is_the_same_when_nothing_had_happened_since(
    copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    made = []
    for name in ("whole", "ended"):
        home, _ = copied(tmp_path / name)
        if name == "ended":
            later = [file for file in home.run.glob("event_log/*/date=*") if file.name > "date=2024-01-02"]
            later += [file for file in home.offline.glob("*_activity/date=*") if file.stem > "date=2024-01-03"]
            assert len(later) > 10
            for path in later:
                path.rename(path.with_name(f".{path.name}"))
        backfill(home, "ctr_v1", date(2024, 1, 2), date(2024, 1, 2), SILENT)
        views = [home.view_folder(embedding_version(home.catalogue.version("ctr_v1")), entity) for entity in ENTITIES]
        made.append({view.name: results(view, ".")["date=2024-01-02.parquet"] for view in views})
    assert_equal_results(*made)


def test_walk_taken_again_embeds_each_day_as_the_first_one_did(home_and_shop: tuple[Home, Shop]) -> None:
    home, _ = home_and_shop
    record = home.catalogue.version("cvr_v1")
    cutoffs = [day.cutoff for day in home.catalogue.days("cvr_v1")]
    before = results(home.folder("cvr_v1"), "daily")
    for file in (home.folder("cvr_v1") / "daily").rglob("*.parquet"):
        file.unlink()
    out = home.folder("cvr_v1") / "again"
    walked_days.walk_days(home, record, cutoffs, out, SILENT)
    assert walked_days.embed_days(home, record, cutoffs, out, SILENT)["days"] == 6
    assert results(home.folder("cvr_v1"), "daily") == before


@pytest.mark.parametrize(("first", "last"), [("2023-12-30", "2024-01-02"), ("2024-01-05", "2024-01-20")])
def test_backfill_refuses_days_that_cannot_be_made(first_home: Home, first: str, last: str) -> None:
    expected = r"--from and --to must name days from 2024-01-02, where training begins, to 2024-01-02"
    with pytest.raises(ValueError, match=expected):
        backfill(first_home, "ctr_v1", date.fromisoformat(first), date.fromisoformat(last), SILENT)


@pytest.mark.parametrize(("free_mb", "expected"), [(None, 4), (8000.0, 4), (2000.0, 2), (100.0, 1)])
def test_processes_are_as_many_as_memory_allows(
    free_mb: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walked_days, "_free_mb", lambda: free_mb)
    assert walked_days.processes(4, 500.0) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--model", "ctr"), "one of --from-scratch and --compatible-with must be given"),
        (("--model", "nothing", "--from-scratch"), "--model must be one of ctr, cvr"),
        (("--model", "ctr", "--compatible-with", "cvr_v1"), "--compatible-with must name a version of ctr"),
        (("--model", "ctr", "--compatible-with", "ctr_v9"), "version must be one of ctr_v1, cvr_v1"),
    ],
)
def test_creation_says_what_is_wrong(first_home: Home, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in headwater("version", "create", "--run", first_home.run, *arguments, code=2).stderr


def promote(home: Home, release: str, key: str) -> None:
    """Make a release without models live."""
    space = home.catalogue.version(key).space_id
    assert space is not None
    record = ReleaseRecord(id=release, folder=f"releases/{release}", manifest_sha256="0" * 64, versions={key: space})
    home.catalogue.create_release(record, who="someone@here", why="a test")
    home.catalogue.promote(release, who="someone@here", why="a test")


def _vectors(file: Path, dim: int) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read()
    return np.asarray(table.column(0)), np.stack(table["embedding"].to_numpy()).reshape(-1, dim)


def _centred(vectors: np.ndarray) -> np.ndarray:
    """Directions from the mean."""
    around = vectors - vectors.mean(axis=0)
    return np.asarray(around / np.linalg.norm(around, axis=1, keepdims=True))


def _mean_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum(axis=1).mean())
