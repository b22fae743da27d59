"""What a run leaves in the catalogue, and that it does not forget what it did not make."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from feature_repo.versions import VersionState
from tests.integration.runs import headwater
from tests.life.shop import FIRST, TRAINED, UNTIL, Shop, ingested, moved
from trainers import run_config
from trainers.data.prepare import cut
from trainers.life.home import Home
from trainers.life.new_version import create_version
from trainers.life.recording import would_be_lost
from trainers.life.refresh import refresh
from trainers.life.version_plan import NewVersion
from trainers.progress import SILENT
from trainers.upstream.reference import space_id

DAY = timedelta(days=1)


def test_run_records_its_versions_and_their_days(first_home: Home) -> None:
    for key in ("ctr_v1", "cvr_v1"):
        record = first_home.catalogue.version(key)
        assert (record.state, record.seed, record.alignment) == (VersionState.CANDIDATE, 1, "procrustes")
        assert (record.data_from, record.data_until) == (FIRST, UNTIL)
        assert record.space_id == space_id(first_home.folder(key))
        assert record.recipe["token_dim"] == first_home.recipe.upstream.token_dim
        days = first_home.catalogue.days(key)
        assert [day.cutoff for day in days] == [FIRST + n * DAY for n in range(2, 8)]
        assert {day.state for day in days} == {"visible"}
        assert days[-1].gates["finite_user"] == 1.0
        moves = [each.after for each in first_home.catalogue.transitions(f"version {key}") if each.before != each.after]
        assert moves == ["training", "backfilling", "candidate"]


def test_run_that_trains_again_forgets_what_it_made_itself(home_and_shop: tuple[Home, Shop]) -> None:
    home, _ = home_and_shop
    before = home.catalogue.version("ctr_v1").space_id
    assert would_be_lost(home.context) == []
    for step in TRAINED:
        headwater(step, "--run", home.run, "--seed", "2", "--quiet")
    record = home.catalogue.version("ctr_v1")
    assert (record.seed, record.state) == (2, VersionState.CANDIDATE)
    assert record.space_id not in (None, before)


def test_run_refuses_to_forget_refreshed_days_and_other_versions(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    refresh(home, date(2024, 1, 9), SILENT)
    create_version(home, NewVersion(model="cvr"), SILENT)
    assert would_be_lost(home.context) == ["version cvr_v2", "1 refreshed days of ctr_v1", "1 refreshed days of cvr_v1"]
    markers = {file: file.read_text() for file in (home.run / "steps").iterdir()}
    result = headwater("run", "--run", home.run, "--quiet", code=2)
    error = result.stderr.splitlines()[-1]
    assert "version cvr_v2; 1 refreshed days of ctr_v1; 1 refreshed days of cvr_v1, which would be lost" in error
    assert "headwater refresh" in error
    assert "--out" in error
    assert {file: file.read_text() for file in (home.run / "steps").iterdir()} == markers
    assert home.newest_day("ctr_v1").cutoff == UNTIL + DAY


def test_until_cuts_the_log_and_its_window(first_shop: Shop, tmp_path: Path) -> None:
    shop = first_shop.copy(tmp_path / "shop")
    shop.yaml.write_text(shop.yaml.read_text().replace(UNTIL.isoformat(), (UNTIL + 2 * DAY).isoformat()))
    shop.show(9)
    log = ingested(shop, tmp_path / "run", until="2024-01-08")
    assert log.spec.window.until == UNTIL
    assert log.days()[-1] == date(2024, 1, 7)
    assert log.days("conversions")[-1] == date(2024, 1, 7)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["until"] == "2024-01-08"
    config = run_config.load(tmp_path / "run")
    assert config is not None
    assert config.until == "2024-01-08"


@pytest.mark.parametrize("until", ["2024-01-07", "2024-01-09"])
def test_until_must_leave_test_days_and_lie_in_the_window(first_home: Home, until: str) -> None:
    expected = r"--until must leave train and test days: after 2024-01-07.* at most 2024-01-08"
    with pytest.raises(ValueError, match=expected):
        cut(first_home.log.spec, until)


def test_home_of_a_folder_without_versions_says_what_to_run(tmp_path: Path, first_shop: Shop) -> None:
    with pytest.raises(ValueError, match="must be the directory of a run"):
        Home.of_run(tmp_path)
    ingested(first_shop, tmp_path / "run")
    with pytest.raises(ValueError, match=r"must hold embedding versions \(got none\); run `headwater run"):
        Home.of_run(tmp_path / "run")


def test_moved_run_finds_its_versions(first_home: Home, first_shop: Shop, tmp_path: Path) -> None:
    home, _ = moved(first_home, first_shop, tmp_path)
    assert [record.key for record in home.catalogue.versions()] == ["ctr_v1", "cvr_v1"]
