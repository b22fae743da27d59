"""A day that the gates refuse: it stays invisible, is judged again, or goes on as a version of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.contract import ENTITIES
from feature_repo.layout import open_store
from feature_repo.versions import VersionRecord, VersionState
from tests.integration.runs import headwater
from tests.life.shop import UNTIL, Shop
from trainers.life import day as day_module
from trainers.life import diverted
from trainers.life.home import Home, embedding_version
from trainers.life.refresh import planned, refresh
from trainers.progress import SILENT
from trainers.upstream import gate_recipes
from trainers.upstream.gates import GateFailedError

DAY = timedelta(days=1)
NEXT = UNTIL + DAY
IMPOSSIBLE = replace(gate_recipes.tiny(), min_cosine_median=1.5)


def refuse_everything(home: Home) -> None:
    """Let no day pass."""
    home.__dict__["recipe"] = replace(home.recipe, gates=IMPOSSIBLE)


def allow(home: Home) -> None:
    """The recipe's own gates again."""
    del home.__dict__["recipe"]


def test_refused_day_stays_invisible_and_the_day_before_stays(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    refuse_everything(home)
    with pytest.raises(GateFailedError) as refused:
        refresh(home, date(2024, 1, 9), SILENT)
    text = str(refused.value)
    assert "2024-01-09 of ctr_v1 and cvr_v1 stays invisible, the day before stays live" in text
    assert "ctr_v1 cosine_median_user must be at least 1.5 (got " in text
    assert "--as-new-version" in text
    for key in ("ctr_v1", "cvr_v1"):
        assert home.newest_day(key).cutoff == UNTIL
        (day,) = home.catalogue.days(key, NEXT)
        assert (day.state, day.failed) == ("failed", ("cosine_median_user", "cosine_median_pin"))
        assert day.gates["finite_user"] == 1.0
    assert not list(home.offline.glob("*_embedding_*/date=2024-01-09.parquet"))


def test_command_ends_with_1_when_a_gate_fails(
    home_and_shop: tuple[Home, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, shop = home_and_shop
    shop.show(8)
    monkeypatch.setattr(gate_recipes, "tiny", lambda: IMPOSSIBLE)
    result = headwater("refresh", "--run", home.run, "--as-of", "2024-01-09", "--quiet", code=1)
    assert result.stderr.splitlines()[-1].startswith("error: 2024-01-09 of ctr_v1 and cvr_v1 stays invisible")


def test_refused_day_is_judged_again_without_training_again(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    refuse_everything(home)
    with pytest.raises(GateFailedError):
        refresh(home, date(2024, 1, 9), SILENT)
    allow(home)
    trained = json.loads((home.run / "refreshing" / "date=2024-01-09" / "done" / "train.json").read_text())
    assert planned(home, date(2024, 1, 9))[0].begun
    (outcome,) = refresh(home, date(2024, 1, 9), SILENT)
    assert dataclasses.asdict(outcome.substeps[2]) == trained
    assert [day.state for day in home.catalogue.days("ctr_v1", NEXT)] == ["visible"]


def test_refused_day_is_made_anew_when_its_raw_data_was_mended(home_and_shop: tuple[Home, Shop]) -> None:
    home, shop = home_and_shop
    shop.show(8)
    whole = shop.rows("impressions", 7)
    shop.change("impressions", 7, whole.filter(pc.not_equal(pc.bit_wise_and(whole["impression_id"], 3), 0)))
    shop.change("conversions", 7, _of(shop.rows("conversions", 7), shop, 7))
    refuse_everything(home)
    with pytest.raises(GateFailedError):
        refresh(home, date(2024, 1, 9), SILENT)
    allow(home)
    shop.show(8)
    refresh(home, date(2024, 1, 9), SILENT)
    assert home.log.impressions(UNTIL, NEXT).num_rows == whole.num_rows


def test_refused_day_goes_on_as_a_new_version_also_after_a_kill(
    home_and_shop: tuple[Home, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, shop = home_and_shop
    shop.show(9)
    refuse_everything(home)
    with monkeypatch.context() as patch:
        patch.setattr(day_module, "divert", _stop_at("cvr_v2"))
        with pytest.raises(KeyboardInterrupt):
            refresh(home, date(2024, 1, 9), SILENT, as_new_version=True)
    assert home.catalogue.version("ctr_v2").state == VersionState.BACKFILLING
    assert planned(home, date(2024, 1, 9))[0].versions == ("ctr_v1", "cvr_v1")
    # That the day goes on as new versions was decided, and gates that would let it pass now change nothing.
    allow(home)
    (outcome,) = refresh(home, date(2024, 1, 9), SILENT)
    assert outcome.versions == ("ctr_v2", "cvr_v2")
    record = home.catalogue.version("ctr_v2")
    assert (record.state, record.parents, record.data_until) == (VersionState.CANDIDATE, ("ctr_v1",), NEXT)
    assert record.space_id != home.catalogue.version("ctr_v1").space_id
    assert home.newest_day("ctr_v2").cutoff == NEXT
    assert home.newest_day("ctr_v1").cutoff == UNTIL
    for entity in ENTITIES:
        assert home.snapshot(embedding_version(record), entity, NEXT).is_file()
    store = open_store(home.repo_dir)
    assert "ranking__ctr_v2__cvr_v2" in {service.name for service in store.list_feature_services()}
    (day,) = planned(home, date(2024, 1, 10))
    assert day.versions == ("ctr_v2", "cvr_v2")
    refresh(home, date(2024, 1, 10), SILENT)
    assert home.newest_day("cvr_v2").cutoff == NEXT + DAY
    home.catalogue.retire_version("ctr_v2", who="someone@here", why="the refused day was broken")
    assert [day.versions for day in planned(home, date(2024, 1, 10))] == [("ctr_v1",), ("ctr_v1",)]


def _stop_at(key: str) -> Callable[..., None]:
    """Making a version of a refused day, interrupted at one."""

    def divert(home: Home, record: VersionRecord, made: str, *arguments: Any) -> None:
        if made == key:
            raise KeyboardInterrupt
        diverted.divert(home, record, made, *arguments)

    return divert


def _of(conversions: pa.Table, shop: Shop, number: int) -> pa.Table:
    """Conversions without those of impressions that the shop leaves out."""
    left_out = pc.equal(pc.bit_wise_and(conversions["impression_id"], 3), 0)
    of_the_day = pc.is_in(conversions["impression_id"], shop.rows("impressions", number)["impression_id"])
    return conversions.filter(pc.invert(pc.and_(left_out, of_the_day)))
