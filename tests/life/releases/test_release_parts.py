"""A release from retrained parts over an existing one: made when everything agrees, refused when anything does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from feature_repo.release.manifest import ReleaseError, load_manifest
from feature_repo.versions import Catalogue, ReleaseDisagreesError, UnknownSubjectError, WrongStateError
from serving.loading import load_recommender
from serving.settings import Settings
from tests.life.releases.files import (
    BY_REQUEST,
    RETRAINED,
    edit_manifest,
    version,
    write_manifest,
    write_parts,
    write_program,
)
from tests.serving.tiny_run import NOW, SPACES
from trainers.life.prune import prunable, prune
from trainers.life.release_parts import check_servable, create_from_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a retrained pctr ranker."""
    return write_parts(tmp_path / "parts")


def create(run: Path, catalogue: Catalogue, folder: Path, **options: Any) -> Any:
    return create_from_folder(run, catalogue, folder, **({"base": None, "who": "a@b", "why": "a test"} | options))


def test_release_is_made_from_retrained_parts_over_the_live_one(run: Path, catalogue: Catalogue, folder: Path) -> None:
    manifest = create(run, catalogue, folder)
    record = catalogue.release(manifest.release)
    assert (record.state, record.parent, record.made_by) == ("candidate", "tiny-1", "a@b")
    assert (record.versions, record.folder) == ({"ctr_v1": SPACES[1]}, f"releases/{manifest.release}")
    assert catalogue.pointers().live == "tiny-1"
    made, base = run / record.folder, run / "releases" / "tiny-1"
    assert load_manifest(made) == manifest
    assert (made / "retrained.onnx").read_bytes() == (folder / "retrained.onnx").read_bytes()
    assert (made / "cvr.onnx").read_bytes() == (base / "cvr.onnx").read_bytes()
    assert not (made / "ctr.onnx").exists()
    assert manifest.figures == {"pctr_roc_auc": 0.8}


@pytest.mark.parametrize("program", [RETRAINED, BY_REQUEST])
def test_release_from_parts_answers_with_the_retrained_model(
    run: Path, catalogue: Catalogue, folder: Path, program: str
) -> None:
    write_program(folder / "retrained.onnx", program)
    manifest = create(run, catalogue, folder)
    recommender = load_recommender(Settings(run=run, as_of=NOW, threads=1), run / "releases" / manifest.release)
    ranked = recommender.rank(recommender.user(1, NOW), [102], "0", NOW)
    # User 1 has 10 impressions and Pin 102 costs 2: sigmoid((1 - 2) / 2).
    assert ranked.pctr == [pytest.approx(0.377541, abs=1e-6)]


def test_release_is_made_again_from_the_same_parts_without_change(
    run: Path, catalogue: Catalogue, folder: Path
) -> None:
    first, again = create(run, catalogue, folder), create(run, catalogue, folder)
    assert first == again
    assert len(catalogue.releases()) == 3


def test_release_that_was_given_up_is_not_made_again_and_gets_no_folder(
    run: Path, catalogue: Catalogue, folder: Path
) -> None:
    manifest = create(run, catalogue, folder)
    catalogue.retire_release(manifest.release, who="a@b", why="a test")
    with pytest.raises(WrongStateError, match=r"must not have been given up to be made again \(it is retired\)"):
        create(run, catalogue, folder)
    prune(run, catalogue, prunable(run, catalogue), who="a@b", why="a test")
    with pytest.raises(WrongStateError, match="it is pruned"):
        create(run, catalogue, folder)
    assert sorted(path.name for path in (run / "releases").iterdir()) == ["tiny-1", "tiny-2"]


def test_dry_run_checks_everything_and_leaves_nothing(run: Path, catalogue: Catalogue, folder: Path) -> None:
    before = sorted(path.name for path in (run / "releases").iterdir())
    assert create(run, catalogue, folder, dry_run=True).parent == "tiny-1"
    assert sorted(path.name for path in (run / "releases").iterdir()) == before
    assert len(catalogue.releases()) == 2
    edit_manifest(folder, embeddings=[version(1, space_id="f" * 12)])
    with pytest.raises(ReleaseDisagreesError):
        create(run, catalogue, folder, dry_run=True)


def test_parts_are_put_over_the_named_base(run: Path, catalogue: Catalogue, folder: Path) -> None:
    edit_manifest(folder, embeddings=[version(2)])
    assert create(run, catalogue, folder, base="tiny-2").services.ranking == "ranking__ctr_v2"
    with pytest.raises(UnknownSubjectError, match="got 'tiny-3'"):
        create(run, catalogue, folder, base="tiny-3")


PIN_PRICE = {"column": "pin_attributes__price", "log": False, "mean": 1.0, "scale": 2.0}


def encoder(side: str, **parts: Any) -> dict[str, Any]:
    empty = {name: [] for name in ("dense", "categorical", "multi_valued", "ids", "lists", "vectors")}
    return {"side": side, "list_length": 0, **empty, **parts}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"embeddings": [version(1, space_id="f" * 12)]}, "version ctr_v1 is space 0123456789ab, and the parts were"),
        ({"embeddings": [version(9)]}, "version ctr_v9 is unknown to the catalogue, which has ctr_v1, ctr_v2"),
        ({"embeddings": [version(2)]}, "rankers.pcvr of tiny-1 was trained on ctr_v1 (0123456789ab), and the parts on"),
        ({"embeddings": [version(2)]}, "retrieval.model of tiny-1 was trained on ctr_v1 (0123456789ab), and the parts"),
        ({"embeddings": [version(2)]}, "retrieval.candidate_model of tiny-1 was trained on ctr_v1"),
        ({"embeddings": [version(2)]}, "must read embedding versions ['user_embedding_ctr_v2'] (its services read"),
        (
            {"embeddings": [version(2)]},
            "encoder query_user reads user_embedding_ctr_v1__embedding, which is of none of",
        ),
        (
            {"embeddings": [version(1, dim=3)]},
            "encoder query_user reads user_embedding_ctr_v1__embedding 2 wide, not 3",
        ),
        ({"services": {"ranking": "ranking__mine"}}, "the Feast repo must have service 'ranking__mine'"),
        ({"services": {"ranking": "ranking__ctr_v2"}}, "its services read ['user_embedding_ctr_v2']"),
        ({"services": {"ranking": "ranking"}}, "(they lack ['pin_embedding_ctr_v1__embedding'])"),
        ({"pin_title": "name"}, "they lack ['pin_attributes__name']"),
        (
            {"encoders": {"ranking.pin": encoder("pin", dense=[PIN_PRICE])}},
            "rankers.pcvr of tiny-1 reads through its own ranking.pin, which the parts replace",
        ),
        (
            {"encoders": {"ranking.pin": encoder("pin")}},
            "retrained.onnx reads ['pin_dense'], and its encoders make ['context_categorical', 'user_dense'",
        ),
        (
            {"encoders": {"ranking.pin": encoder("pin", dense=[PIN_PRICE, PIN_PRICE])}},
            "retrained.onnx cannot be run with what its encoders make",
        ),
        (
            {"rankers": {"pctr": {"model": "retrained.onnx", "output": "like"}}},
            "retrained.onnx has outputs ['click'], not 'like'",
        ),
    ],
)
def test_release_whose_parts_disagree_cannot_be_made(
    run: Path, catalogue: Catalogue, folder: Path, changes: dict[str, Any], told: str
) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(ReleaseDisagreesError, match="all parts of a release must agree") as error:
        create(run, catalogue, folder)
    assert told in str(error.value)
    assert sorted(path.name for path in (run / "releases").iterdir()) == ["tiny-1", "tiny-2"]
    assert len(catalogue.releases()) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"colour": "red"}, "(got ['colour'])"),
        ({"release": "mine"}, "(got ['release'])"),
        ({"rankers": {"pctr": {"model": "/etc/passwd", "output": "x"}}}, "breaks the contract of a release"),
        ({"rankers": {"pctr": {"model": "other.onnx", "output": "x"}}}, "breaks the contract of a release"),
        ({"surfaces": []}, "surfaces"),
        ({"sha256": {"retrained.onnx": "0" * 64}}, "must have sha256 0000"),
        ({"sha256": {"none.onnx": "0" * 64}}, "(got no file)"),
    ],
)
def test_parts_that_break_the_contract_are_refused(
    run: Path, catalogue: Catalogue, folder: Path, changes: dict[str, Any], told: str
) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(ReleaseError) as error:
        create(run, catalogue, folder)
    assert told in str(error.value)


def test_parts_must_say_what_they_were_trained_on(run: Path, catalogue: Catalogue, folder: Path) -> None:
    write_manifest(folder, figures={})
    with pytest.raises(ReleaseError, match="must name the embedding versions that the parts were trained on"):
        create(run, catalogue, folder)
    (folder / "manifest.json").write_text("[1]")
    with pytest.raises(ReleaseError, match=r"must hold one JSON object \(got list\)"):
        create(run, catalogue, folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ReleaseError, match="must be JSON"):
        create(run, catalogue, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ReleaseError, match=r"must say what the parts are \(got no file\)"):
        create(run, catalogue, folder)


def test_files_that_the_manifest_does_not_name_are_refused(run: Path, catalogue: Catalogue, folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ReleaseError, match=r"got \['notes\.txt'\]"):
        create(run, catalogue, folder)


def test_index_and_programs_of_other_widths_are_refused(run: Path, catalogue: Catalogue, folder: Path) -> None:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(4))
    index.add_with_ids(np.eye(4, dtype=np.float32)[:2], np.array([101, 102]))
    faiss.write_index(index, str(folder / "pins.faiss"))
    with pytest.raises(ReleaseDisagreesError, match="holds 2 vectors of width 4, not 6 of width 3"):
        create(run, catalogue, folder)
    retrieval = load_manifest(run / "releases" / "tiny-1").retrieval.model_dump() | {"dim": 4, "num_pins": 2}
    edit_manifest(folder, retrieval=retrieval)
    with pytest.raises(ReleaseDisagreesError) as error:
        create(run, catalogue, folder)
    assert "query_tower.onnx gives 'query' of shape (2, 3) for 2 rows, not (2, 4)" in str(error.value)
    assert "candidate_tower.onnx gives 'candidate' of shape (2, 2) for 2 rows, not (2, 3)" in str(error.value)


def test_program_and_index_that_are_none_are_refused(run: Path, catalogue: Catalogue, folder: Path) -> None:
    (folder / "retrained.onnx").write_bytes(b"nonsense")
    (folder / "pins.faiss").write_bytes(b"nonsense")
    with pytest.raises(ReleaseDisagreesError) as error:
        create(run, catalogue, folder)
    assert "retrained.onnx cannot be run" in str(error.value)
    assert "pins.faiss is no faiss index" in str(error.value)


def test_servable_release_has_its_files_and_its_services(run: Path, catalogue: Catalogue) -> None:
    assert check_servable(run, catalogue, "tiny-2").release == "tiny-2"
    (run / "releases" / "tiny-2" / "cvr.onnx").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"cvr\.onnx must have sha256"):
        check_servable(run, catalogue, "tiny-2")
