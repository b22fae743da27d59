"""What differs between two releases, part by part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feature_repo.encoding import DenseInput
from feature_repo.release.manifest import ReleaseManifest, load_manifest
from trainers.life.release_diff import changes


@pytest.fixture
def manifest(whole_run: Path) -> ReleaseManifest:
    return load_manifest(whole_run / "releases" / "tiny-1")


def told(before: ReleaseManifest, **changed: Any) -> dict[str, tuple[str, str]]:
    """Differences of a manifest from itself with some fields changed."""
    return {each.part: (each.before, each.after) for each in changes(before, before.model_copy(update=changed))}


def test_release_does_not_differ_from_itself(manifest: ReleaseManifest) -> None:
    assert changes(manifest, manifest) == []


def test_diff_names_index_figures_files_and_origin(manifest: ReleaseManifest) -> None:
    retrieval = manifest.retrieval.model_copy(update={"num_pins": 7})
    found = told(
        manifest,
        retrieval=retrieval,
        figures={"pctr_roc_auc": 0.75},
        sha256={**manifest.sha256, "pins.faiss": "f" * 64},
        parent="tiny-0",
        popular={**manifest.popular, "*": (101, 102)},
    )
    assert found == {
        "pins.faiss": (manifest.sha256["pins.faiss"][:12], "f" * 12),
        "index Pins": ("6", "7"),
        "popular Pins of *": ("103 102", "101 102"),
        "figure pctr_roc_auc": ("", "0.7500"),
        "parent": ("", "tiny-0"),
    }


def test_diff_tells_encoders_fitted_anew_from_encoders_of_other_columns(manifest: ReleaseManifest) -> None:
    spec = manifest.encoders.ranking_pin
    refitted = replace(spec, dense=(replace(spec.dense[0], mean=9.0),))
    encoders = manifest.encoders.model_copy(update={"ranking_pin": refitted})
    assert told(manifest, encoders=encoders) == {"encoder ranking.pin": ("2 columns", "2 columns, fitted anew")}
    other = replace(spec, dense=(DenseInput(column="pin_activity__click_7d", log=False, mean=0.0, scale=1.0),))
    encoders = manifest.encoders.model_copy(update={"ranking_pin": other})
    assert told(manifest, encoders=encoders) == {
        "encoder ranking.pin": ("2 columns, pin_attributes__price", "2 columns, pin_activity__click_7d")
    }
