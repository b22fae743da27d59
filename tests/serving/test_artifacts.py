"""The serving contract: what a manifest must say, and that files are verified before they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feature_repo.release.files import sha256_of, verify_files
from feature_repo.release.manifest import RankerArtifact, ReleaseError, ReleaseManifest, load_manifest
from serving.releases import load_release


def test_manifest_survives_a_round_trip(release_dir: Path) -> None:
    manifest = load_manifest(release_dir)
    again = ReleaseManifest.model_validate_json(manifest.model_dump_json(by_alias=True))
    assert again == manifest
    assert json.loads(manifest.model_dump_json(by_alias=True))["encoders"]["query.user"]["side"] == "user"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"colour": "red"}, "colour"),
        ({"format": 1}, "format"),
        ({"release": "../evil"}, "release"),
        ({"embeddings": [{"model": "ctr", "version": 1, "dim": 2, "space_id": "?"}]}, "embeddings.0.space_id"),
        ({"created": "2026-01-10T00:00:00"}, "created"),
        ({"surfaces": []}, "surfaces"),
        ({"popular": {"1": [101]}}, "popular"),
        ({"sha256": {}}, "sha256"),
        ({"embeddings": [{"model": "ctr", "version": 1, "dim": 2, "colour": "red"}]}, "colour"),
        ({"embeddings": [{"model": "ctr", "version": "one", "dim": 2}]}, "embeddings.0.version"),
        ({"sha256": {"../evil.onnx": "0" * 64}}, "../evil.onnx"),
        ({"encoders": {"query.user": {}}}, "side"),
        ({"rankers": {"pctr": {"model": "/etc/passwd", "output": "x"}}}, "rankers.pctr.model"),
    ],
)
def test_manifest_that_breaks_the_contract_is_refused(
    edit_manifest: Callable[..., Path], changes: dict[str, Any], names: str
) -> None:
    with pytest.raises(ReleaseError, match=r"manifest\.json breaks the serving contract") as error:
        load_manifest(edit_manifest(**changes))
    assert names in str(error.value)


def test_absent_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"manifest\.json must exist"):
        load_manifest(tmp_path)


def test_verify_files_names_the_changed_file(release_dir: Path) -> None:
    with (release_dir / "ctr.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ReleaseError, match=r"ctr\.onnx must have sha256 [0-9a-f]{64} \(got [0-9a-f]{64}\)"):
        verify_files(release_dir, load_manifest(release_dir))


def test_verify_files_names_the_absent_file(release_dir: Path) -> None:
    (release_dir / "pins.faiss").unlink()
    with pytest.raises(ReleaseError, match=r"pins\.faiss must exist"):
        verify_files(release_dir, load_manifest(release_dir))


def test_sha256_of_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_load_release_refuses_an_index_of_another_size(edit_manifest: Callable[..., Path], release_dir: Path) -> None:
    retrieval = load_manifest(release_dir).retrieval.model_dump() | {"num_pins": 7}
    with pytest.raises(ReleaseError, match="must hold 7 vectors of width 3"):
        load_release(edit_manifest(retrieval=retrieval), threads=1)


def test_load_release_refuses_a_model_without_the_output(edit_manifest: Callable[..., Path]) -> None:
    rankers = {"pctr": {"model": "ctr.onnx", "output": "like"}}
    with pytest.raises(ReleaseError, match=r"must have an output 'like' \(got \['click'\]\)"):
        load_release(edit_manifest(rankers=rankers), threads=1)


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        ({"1": (2.0, 0.5), "*": (3.0, 0.0)}, (2.0, 0.5)),
        ({"*": (3.0, 0.0)}, (3.0, 0.0)),
        ({"0": (3.0, 0.0)}, (1.0, 0.0)),
    ],
)
def test_calibration_falls_back_to_all_surfaces_then_to_identity(
    calibration: dict[str, tuple[float, float]], expected: tuple[float, float]
) -> None:
    artifact = RankerArtifact(model="ctr.onnx", output="click", calibration=calibration)
    assert artifact.calibration_on("1") == expected


def test_popular_pins_of_a_surface_come_before_those_of_all(release_dir: Path) -> None:
    manifest = load_manifest(release_dir)
    assert manifest.popular_on("1") == [104, 102, 103]
    assert manifest.popular_on("0") == [103, 102]
