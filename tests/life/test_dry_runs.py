"""What commands would do: said, and no byte of the run is another one afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from feature_repo.release.files import sha256_of
from tests.integration.runs import headwater
from tests.life.shop import Shop
from trainers.life.home import Home
from trainers.life.requests import Request
from trainers.life.version_plan import NewVersion, planned_version

VERSION = ("--run", "RUN", "--version", "ctr_v1")
PUSH = ("push", "--run", "RUN", "--entity", "user", "--file", "ROWS")
CASES = {
    ("version", "create", "--run", "RUN", "--model", "ctr", "--from-scratch"): "ctr_v2 would be trained from scratch",
    ("version", "create", "--run", "RUN", "--model", "cvr", "--compatible-with", "cvr_v1"): "compatible with cvr_v1",
    ("version", "feed", *VERSION, "--through", "ctr_v2"): "must name a superseded version",
    ("backfill", *VERSION, "--from", "2024-01-02", "--to", "2024-01-02"): "ctr_v1 would get 2024-01-02",
    ("refresh", "--run", "RUN", "--as-of", "2024-01-09"): "2024-01-09 would be made for ctr_v1, cvr_v1",
    PUSH: "1 users would be pushed; the towers of ctr_v1, cvr_v1 would be exported first",
    ("push", "--run", "RUN", "--prepare"): "the towers of ctr_v1, cvr_v1 would be exported",
    ("experiment", "staleness", "--run", "RUN", "--seeds", "2"): "would be studied with seeds 1, 2; no models are kept",
}


@pytest.fixture(scope="module")
def run(copied: Callable[[Path], tuple[Home, Shop]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test changes."""
    home, shop = copied(tmp_path_factory.mktemp("dry"))
    shop.show(8)
    return home.run


def bytes_of(run: Path) -> dict[str, str]:
    """Digest of every file, and every folder."""
    return {str(path): sha256_of(path) if path.is_file() else "" for path in sorted(run.rglob("*"))}


@pytest.mark.parametrize("arguments", list(CASES), ids=lambda arguments: " ".join(arguments[:2]))
def test_dry_run_says_what_would_be_done_and_writes_nothing(
    run: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"user_id": 1}\n')
    named = [{"RUN": str(run), "ROWS": str(rows)}.get(each, each) for each in arguments]
    before, code = bytes_of(run), 2 if "feed" in arguments else 0
    said = headwater(*named, "--dry-run", code=code)
    assert CASES[arguments] in said.output
    shown = json.loads(headwater(*named, "--dry-run", "--json", code=code).stdout)
    assert shown.get("dry_run") is (None if code else True)
    assert bytes_of(run) == before


def test_dry_run_of_a_push_computes_vectors_where_towers_are(
    copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    home, _ = copied(tmp_path)
    headwater("push", "--run", home.run, "--prepare", "--version", "ctr_v1")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"user_id": 1}\n')
    before = bytes_of(home.run)
    push = ("push", "--run", home.run, "--entity", "user", "--file", rows, "--version", "ctr_v1", "--dry-run")
    assert "1 users would be pushed" in headwater(*push).stdout
    assert bytes_of(home.run) == before
    artifacts = home.catalogue.version("ctr_v1").artifacts
    towers = {path: digest for path, digest in artifacts.items() if "/towers/" in path}
    assert {Path(path).name for path in towers} == {"manifest.json", "user_tower.onnx", "pin_tower.onnx"}
    assert all(sha256_of(home.run / path) == digest for path, digest in artifacts.items())


def test_every_file_of_a_version_and_of_its_days_has_its_digest(run: Path) -> None:
    home = Home.of_run(run)
    for record in home.catalogue.versions():
        assert {Path(path).name for path in record.artifacts} == {
            "checkpoint.safetensors",
            "inputs.json",
            "progressive.json",
            "user.parquet",
            "pin.parquet",
        }
        assert all(sha256_of(run / path) == digest for path, digest in record.artifacts.items())
        for day in home.catalogue.days(record.key):
            assert set(day.snapshot_sha256) == {"user", "pin", "raw user", "raw pin"}


def test_version_made_by_a_command_that_was_killed_before_it_told_is_found_again(
    copied: Callable[[Path], tuple[Home, Shop]], tmp_path: Path
) -> None:
    home, _ = copied(tmp_path)
    wanted, asked = NewVersion(model="ctr"), {"model": "ctr", "compatible_with": None, "seed": None}
    request = Request(home.run, "version create", asked)
    # A command that is killed leaves its note.
    request.note(version="ctr_v1")
    plan = planned_version(home, wanted, request.noted())
    assert (plan.record.key, plan.finished, len(plan.cutoffs)) == ("ctr_v1", True, 6)
    create = ("version", "create", "--run", home.run, "--model", "ctr", "--from-scratch")
    assert "ctr_v1 is candidate already: the same command made it" in headwater(*create, "--dry-run").stdout
    assert headwater(*create).stdout.startswith("ctr_v1 is candidate: space")
    assert [each.key for each in home.catalogue.versions(model="ctr")] == ["ctr_v1"]
    # Now it was told, and the same command asks for another one.
    assert "ctr_v2 would be trained from scratch with seed 2" in headwater(*create, "--dry-run").stdout


def test_note_is_forgotten_when_the_command_was_refused(tmp_path: Path) -> None:
    request = Request(tmp_path, "version create", {"model": "ctr"})
    request.note(version="ctr_v2")

    def refuse() -> None:
        with request.until_told():
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse()
    assert Request(tmp_path, "version create", {"model": "ctr"}).noted() == {}


def test_notes_of_other_requests_are_not_taken_for_their_own(tmp_path: Path) -> None:
    Request(tmp_path, "version create", {"model": "ctr", "seed": 1}).note(version="ctr_v2")
    assert Request(tmp_path, "version create", {"model": "ctr", "seed": 2}).noted() == {}
    assert Request(tmp_path, "version create", {"model": "ctr", "seed": 1}).noted() == {"version": "ctr_v2"}
