"""Releases on chosen embedding versions: trained as `evaluate` trains, resumable, and refused where they cannot be."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo.release.manifest import ReleaseManifest, load_manifest
from feature_repo.versions import DayRecord, UnknownSubjectError, VersionRecord, VersionState, WrongStateError
from serving.releases import load_release
from tests.integration.runs import headwater
from tests.life.releases.plain_export import plain_export
from tests.life.shop import FIRST, TRAINED, UNTIL, Shop, trained
from trainers.evaluation import release, retrained
from trainers.evaluation.retrained import create_from_versions, planned
from trainers.life.home import Home
from trainers.life.new_version import create_version
from trainers.life.release_parts import check_servable
from trainers.life.retraining import retraining_folder, retraining_folders_of
from trainers.life.trainable import NotTrainableError
from trainers.life.version_plan import NewVersion
from trainers.markers import Marker, write_marker
from trainers.progress import SILENT

DAY = timedelta(days=1)
ME = {"who": "mia@ops", "why": "a test"}
BOTH = ("ctr_v1", "cvr_v1")


@pytest.fixture(scope="module", autouse=True)
def _programs_are_plain() -> Iterator[None]:
    """Exporting is tested with the exporter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "export", plain_export)
        patch.setattr(release, "export_ranker", plain_export)
        yield


@pytest.fixture(scope="module")
def evaluated(
    copied: Callable[[Path], tuple[Home, Shop]],
    tmp_path_factory: pytest.TempPathFactory,
    _programs_are_plain: None,
) -> Home:
    """A run whose own release is live, with a second CTR version that no release reads."""
    home, shop = copied(tmp_path_factory.mktemp("evaluated"))
    trained(shop, home.run, (*TRAINED, "evaluate"))
    create_version(home, NewVersion(model="ctr"), SILENT)
    return home


@pytest.fixture
def ready(home_and_shop: tuple[Home, Shop]) -> Home:
    """A run that says it was evaluated and has no release: enough to be refused in."""
    home, _ = home_and_shop
    made: dict[str, Any] = {"fingerprint": "f", "inputs": {}, "files": [], "figures": {}, "finished": "now"}
    write_marker(home.run, Marker(step="evaluate", seconds=1.0, peak_mb=1.0, **made))
    return home


def live(home: Home) -> ReleaseManifest:
    name = home.catalogue.pointers().live
    assert name is not None
    return load_manifest(home.run / "releases" / name)


def create(home: Home, *arguments: str, code: int = 0) -> Any:
    return headwater("release", "create", "--run", home.run, *arguments, code=code)


def stop(*arguments: object, **options: object) -> None:
    """In the place of something that Ctrl-C interrupts."""
    del arguments, options
    raise KeyboardInterrupt


def test_release_on_the_runs_own_versions_holds_what_evaluate_released(evaluated: Home) -> None:
    theirs = live(evaluated)
    ours = create_from_versions(evaluated, BOTH, SILENT, **ME)
    assert ours.sha256 == theirs.sha256
    assert set(ours.sha256) == {"pctr.onnx", "pcvr.onnx", "query_tower.onnx", "candidate_tower.onnx", "pins.faiss"}
    assert (ours.encoders, ours.rankers, ours.retrieval) == (theirs.encoders, theirs.rankers, theirs.retrieval)
    assert (ours.services, ours.embeddings, ours.popular) == (theirs.services, theirs.embeddings, theirs.popular)
    without = {name for name in theirs.figures if "without_embeddings" in name}
    assert ours.figures == pytest.approx({name: theirs.figures[name] for name in set(theirs.figures) - without})
    assert {"pctr_roc_auc", "pcvr_log_loss", "retrieval_recall_at_20"} <= set(ours.figures)


def test_release_on_a_new_version_goes_on_after_a_kill_and_can_be_promoted(
    evaluated: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted((evaluated.run / "releases").iterdir())
    monkeypatch.setattr(retrained, "run_seed", stop)
    told = create(evaluated, "--version", "ctr_v2", "-q", code=130).stderr
    assert f"release create --run {evaluated.run} --version ctr_v2` goes on from there" in told
    plan = json.loads(create(evaluated, "--version", "ctr_v2", "--dry-run", "--json").stdout)
    assert plan["models"] == {"retrieval_seed1": "kept", "pctr_seed1": "to train", "pcvr_seed1": "to train"}
    assert (plan["data_cutoff"], plan["services"]["ranking"]) == (UNTIL.isoformat(), "ranking__ctr_v2__cvr_v1")
    assert "would be trained on  ctr_v2 (" in create(evaluated, "--version", "ctr_v2", "--dry-run").stdout
    assert sorted((evaluated.run / "releases").iterdir()) == before

    monkeypatch.undo()
    monkeypatch.setattr(retrained, "two_tower", stop)
    found = json.loads(create(evaluated, "--version", "ctr_v2", "--json", "-q", "--why", "a new space").stdout)
    record = evaluated.catalogue.release(found["release"])
    assert (record.state, set(record.versions), record.parent) == ("candidate", {"ctr_v2", "cvr_v1"}, None)
    assert record.versions["ctr_v2"] == evaluated.catalogue.version("ctr_v2").space_id
    assert record.services == {"retrieval": "retrieval__ctr_v2__cvr_v1", "ranking": "ranking__ctr_v2__cvr_v1"}
    assert found["live"] == {"release": live(evaluated).release, "figures": dict(live(evaluated).figures)}
    assert not (evaluated.run / "retraining" / "ctr_v2__cvr_v1").exists()

    made = check_servable(evaluated.run, evaluated.catalogue, record.id)
    read = [column for name, spec in made.encoders for column in spec.columns() if "_embedding_ctr_" in column]
    assert read
    assert all("_embedding_ctr_v2__" in column for column in read)
    assert load_release(evaluated.run / record.folder, threads=1).manifest.figures == found["figures"]
    shown = headwater("release", "show", record.id, "--run", evaluated.run).stdout
    value, theirs = made.figures["pctr_roc_auc"], live(evaluated).figures["pctr_roc_auc"]
    assert f"{value:.4f}, live {theirs:.4f} ({100 * (value / theirs - 1):+.2f} %)" in shown
    assert "figure pctr_roc_auc" in headwater("release", "diff", record.id, "--run", evaluated.run).stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "one of FOLDER and --version must be given"),
        (("parts", "--version", "ctr_v1"), "one of FOLDER and --version must be given"),
        (("--version", "ctr_v1", "--base", "r-1"), "--base must come with a FOLDER"),
        (("parts", "--seeds", "2"), "--seeds must come with --version"),
        (("--version", "ctr_v1", "--seeds", "0"), "--seeds must be at least 1 (got 0)"),
        (("--version", "ctr_v1"), "where it has not finished); run `headwater run --run"),
    ],
)
def test_create_says_what_is_wrong_with_what_was_asked(
    first_home: Home, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in create(first_home, *arguments, code=2).stderr


def test_versions_that_cannot_make_a_release_are_refused(ready: Home) -> None:
    with pytest.raises(UnknownSubjectError, match=r"version must be one of ctr_v1, cvr_v1 \(got 'ctr_v9'\)"):
        planned(ready, ["ctr_v9"], 1)
    with pytest.raises(ValueError, match=r"must name a version of cvr too \(got none, and no release is live"):
        planned(ready, ["ctr_v1"], 1)
    begin(ready, alignment="procrustes")
    with pytest.raises(ValueError, match=r"one version of a model \(got ctr_v1 and ctr_v2\)"):
        planned(ready, ["ctr_v1", "ctr_v2"], 1)
    with pytest.raises(NotTrainableError, match=r"version ctr_v2 must be complete .* \(it is training\)"):
        planned(ready, ["ctr_v2", "cvr_v1"], 1)
    ready.catalogue.retire_version("ctr_v1", who="mia@ops", why="no better")
    with pytest.raises(WrongStateError, match=r"version ctr_v1 must be .* \(got retired: mia@ops .* 'no better'\)"):
        planned(ready, BOTH, 1)


def test_version_without_all_days_is_refused_with_what_makes_them(ready: Home) -> None:
    plan = planned(ready, BOTH, 2)
    assert plan.missing == ("retrieval_seed1_to_2", "pctr_seed1", "pctr_seed2", "pcvr_seed1", "pcvr_seed2")
    assert [day.cutoff for day in plan.chosen.days["ctr_v1"]] == [FIRST + number * DAY for number in range(2, 8)]
    forget_days(ready, "< '2024-01-05'")
    with pytest.raises(NotTrainableError) as error:
        planned(ready, BOTH, 1)
    assert "each from 2024-01-03 to 2024-01-08" in str(error.value)
    assert "(it lacks 2024-01-03 to 2024-01-04)" in str(error.value)
    backfill = f"`headwater backfill --run {ready.run} --version ctr_v1 --from 2024-01-03 --to 2024-01-04` makes them"
    assert str(error.value).endswith(backfill)


def test_version_that_goes_on_from_another_has_no_days_to_train_on(ready: Home) -> None:
    begin(ready, alignment="procrustes", parents=("ctr_v1",))
    catalogue = ready.catalogue
    catalogue.update_version("ctr_v2", space_id="0" * 12)
    for before, after in ((VersionState.TRAINING, "backfilling"), (VersionState.BACKFILLING, "candidate")):
        catalogue.move_version("ctr_v2", VersionState(after), expected=before, **ME)
    for state in ("generated", "checked", "visible"):
        catalogue.put_day(DayRecord(key="ctr_v2", cutoff=UNTIL, state=state))
    with pytest.raises(NotTrainableError, match="it goes on from ctr_v1 and has no such days, so train another: `head"):
        planned(ready, ["ctr_v2", "cvr_v1"], 1)


def test_models_of_an_unfinished_release_are_deleted_with_either_of_its_versions(tmp_path: Path) -> None:
    folder = retraining_folder(tmp_path, BOTH)
    retraining_folder(tmp_path, ("ctr_v11", "cvr_v2")).mkdir(parents=True)
    folder.mkdir()
    assert retraining_folders_of(tmp_path, "ctr_v1") == retraining_folders_of(tmp_path, "cvr_v1") == [folder]
    # As a prune leaves it that was killed.
    folder.rename(folder.with_name(f".{folder.name}.pruned"))
    assert retraining_folders_of(tmp_path, "ctr_v1") == [folder]
    assert retraining_folders_of(tmp_path, "ctr_v2") == []


def begin(home: Home, **changes: Any) -> VersionRecord:
    """A second CTR version, in training."""
    record = VersionRecord(key="ctr_v2", model="ctr", version=2, dim=home.catalogue.version("ctr_v1").dim)
    return home.catalogue.create_version(replace(record, **changes), **ME)


def forget_days(home: Home, when: str) -> None:
    """Take days of the first CTR version out of the catalogue."""
    with sqlite3.connect(home.repo_dir / "data" / "registry.db") as connection:
        gone = connection.execute(f"DELETE FROM headwater_days WHERE key = 'ctr_v1' AND cutoff {when}").rowcount
    assert gone == 2
