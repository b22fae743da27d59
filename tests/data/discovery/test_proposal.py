"""`headwater init` on data that no adapter knows: the YAML it writes is right, readable and ready to run."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from trainers.cli import app
from trainers.data import own_data

SHOP = Path(__file__).parents[3] / "docs" / "examples" / "own_data"
START = datetime(2024, 5, 1, tzinfo=UTC)


def init(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["init", *map(str, arguments), "--quiet"])
    return result.exit_code, result.output


@pytest.fixture(name="shop")
def shop_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("*.yaml", "*.py"))
    return folder


@pytest.fixture(name="press")
def press_fixture(tmp_path: Path) -> Path:
    """Other names, texts as ids, two surfaces, two tables of conversions, actions by name, no entity tables."""
    folder = tmp_path / "press"
    folder.mkdir()
    rng = np.random.default_rng(5)
    rows = 2_000
    moments = [START + timedelta(minutes=int(each)) for each in np.sort(rng.integers(0, 14 * 1440, rows))]
    shown = pa.table(
        {
            "exposureKey": [f"e{i:05}" for i in range(rows)],
            "readerId": [f"r{i}" for i in rng.integers(0, 60, rows)],
            "articleId": [f"a{i}" for i in rng.integers(0, 40, rows)],
            "section": rng.choice(["front", "sports"], rows).tolist(),
            "shownAt": [moment.isoformat() for moment in moments],
            "feedback": rng.choice(["none", "open", "share"], rows, p=[0.5, 0.4, 0.1]).tolist(),
        }
    )
    pacsv.write_csv(shown, folder / "exposures.csv")
    for name, step in (("signups", 40), ("purchases", 25)):
        picked = range(0, rows, step)
        late = pa.table(
            {
                "exposure": [f"e{i:05}" for i in picked],
                "when": [(moments[i] + timedelta(hours=5)).isoformat() for i in picked],
                "amount": [float(i) for i in picked],
            }
        )
        pq.write_table(late, folder / f"{name}.parquet")
    return folder


def test_shop_is_proposed_as_a_person_declared_it(shop: Path) -> None:
    code, output = init(shop)
    assert code == 0, output
    found, declared = (yaml.safe_load(path.read_text()) for path in (shop / "shop.yaml", SHOP / "shop.yaml"))
    assert found["window"] == declared["window"]
    assert found["keys"] == declared["keys"]
    assert found["pin_title"] == "title"
    assert found["conversions"] == declared["conversions"]
    for table in ("impressions", "conversions", "users", "pins"):
        assert found["tables"][table]["columns"] == declared["tables"][table]["columns"]
    assert found["tables"]["pins"]["separators"] == {"tags": "|"}
    assert found["tables"]["impressions"]["labels"] == {
        "click": "opened",
        "save": {"column": "action", "equals": "save"},
    }
    names = [each["name"] for each in found["user_attributes"] + found["pin_attributes"]]
    assert names == ["country", "title", "price", "tags"]


def test_proposal_says_why(shop: Path) -> None:
    code, text = init(shop, "--dry-run")
    assert code == 0
    assert "every row has its own; orders.csv, column impression, refers to it" in text
    assert "names no zone: is it UTC?" in text
    assert "were the attributes known all along?" in text
    assert not (shop / "shop.yaml").exists()


def test_unknown_data_with_texts_as_ids_is_declared_and_ingested(press: Path, tmp_path: Path) -> None:
    code, output = init(press)
    assert code == 0, output
    spec, _ = own_data.load(press / "press.yaml")
    assert spec.labels == ("open", "share")
    assert {each.kind: each.attribution_days for each in spec.conversions} == {"purchase": 1, "signup": 1}
    ingested = CliRunner().invoke(
        app,
        ["ingest", "--dataset", str(press / "press.yaml"), "--recipe", "tiny", "--run", str(tmp_path / "run"), "-q"],
    )
    assert ingested.exit_code == 0, ingested.output
    report = json.loads((tmp_path / "run" / "event_log" / "report.json").read_text())
    assert report["tables"]["impressions"]["kept"] == 2_000
    assert report["tables"]["conversions"]["kept"] == 130
    assert report["tables"]["conversions"]["reasons"] == {}


def test_hints_decide_where_names_do_not_tell(press: Path) -> None:
    table = pacsv.read_csv(press / "exposures.csv").rename_columns(["k", "u", "v", "section", "t", "feedback"])
    (press / "exposures.csv").unlink()
    pacsv.write_csv(table, press / "rows.csv")
    code, output = init(press, "--impressions", "rows")
    assert code == 2
    assert "must have a column that is called like a user (got columns k, u, v, section, t, feedback)" in output
    code, output = init(press, "--impressions", "rows", "--user", "u", "--pin", "v", "--json")
    assert code == 0, output
    found = json.loads(output)
    assert (found["impressions"], found["user"], found["pin"], found["time"]) == ("rows.csv", "u", "v", "t")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--user", "nobody"), "must have the column of --user (got columns exposureKey"),
        (("--surface", "nothing"), "must have the column of --surface (got columns exposureKey"),
        (("--conversions", "refunds"), "users and Pins (got 'refunds', and "),
        (("--impressions", "s."), "must fit the files of one table (got 's.', which fits 3 of"),
    ],
)
def test_wrong_hint_is_refused_with_what_there_is(press: Path, arguments: tuple[str, ...], sentence: str) -> None:
    code, output = init(press, *arguments)
    assert code == 2
    assert sentence in output


def test_yaml_that_is_there_is_kept(shop: Path) -> None:
    (shop / "shop.yaml").write_text("mine")
    code, output = init(shop)
    assert code == 2
    assert "give --force to replace it" in output
    assert (shop / "shop.yaml").read_text() == "mine"


def test_folder_without_data_is_refused(tmp_path: Path) -> None:
    code, output = init(tmp_path)
    assert code == 2
    assert "must hold .parquet, .csv, .csv.gz, .tsv, .tsv.gz files (got none)" in output


def test_log_of_too_few_days_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user,item,time,click\n" + "".join(f"{i % 3},{i % 2},2024-01-0{1 + i % 3} 10:00,{i % 2}\n" for i in range(30))
    )
    code, output = init(tmp_path)
    assert code == 2
    assert "must span at least 6 days" in output
    assert "(got 3 by" in output


def test_features_of_users_are_not_taken_for_users(tmp_path: Path) -> None:
    rows = [f"{i},2024-01-{1 + i % 9:02} 10:00,{i % 5},{1 + i % 3},{i % 2},0.2,u{i % 4}" for i in range(90)]
    header = ",timestamp,item_id,position,click,propensity_score,user_feature_0"
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    code, output = init(tmp_path)
    assert code == 2
    assert "must have a column that is called like a user" in output
    code, output = init(tmp_path, "--user", "user_feature_0", "--dry-run")
    assert code == 0, output
    columns = yaml.safe_load(output)["tables"]["impressions"]["columns"]
    assert columns["position"] == "position"
    assert columns["propensity"] == "propensity_score"
    assert "surface" not in columns


def test_orders_by_user_and_article_and_earlier_baskets_are_found(press: Path) -> None:
    shown = pacsv.read_csv(press / "exposures.csv")
    orders = shown.select(["readerId", "articleId"]).slice(0, 200)
    when = [str(moment + timedelta(hours=3)) for moment in shown["shownAt"].to_pylist()[:200]]
    orders = orders.append_column("bought", pa.array(when)).append_column("price", pa.array([1.5] * 200))
    pacsv.write_csv(orders, press / "orders.csv")
    readers = sorted(set(shown["readerId"].to_pylist()))
    earlier = pa.table({"reader": readers, "read_before": ["a1;a2;a3"] * len(readers)})
    pacsv.write_csv(earlier, press / "past_reading.csv")
    code, output = init(press)
    assert code == 0, output
    declared = yaml.safe_load((press / "press.yaml").read_text())
    assert declared["histories"] == ["past_reading"]
    assert declared["tables"]["histories"]["past_reading"]["columns"] == {"user_id": "reader", "pin_ids": "read_before"}
    assert declared["tables"]["histories"]["past_reading"]["separators"] == {"pin_ids": ";"}
    found = next(each for each in declared["tables"]["conversions"] if each["files"] == "orders.csv")
    assert found["columns"] == {
        "user_id": "readerId",
        "pin_id": "articleId",
        "event_timestamp": "bought",
        "value": "price",
    }
    ingested = CliRunner().invoke(app, ["check", str(press / "press.yaml"), "--json", "-q"])
    tables = {each["table"]: each for each in json.loads(ingested.output)["tables"]}
    assert "conversions" in tables, ingested.output
    assert tables["conversions"]["kept"] == 330
    assert tables["history_past_reading"]["kept"] == len(readers)


def test_conversions_and_surface_are_named_where_names_do_not_tell(press: Path) -> None:
    """Names say nothing, and one conversion in ten comes later than could be waited for in a log of 14 days."""
    shown = pacsv.read_csv(press / "exposures.csv")
    moments = shown["shownAt"].to_pylist()
    late = [moments[i] + timedelta(hours=500 if i % 10 == 0 else 5) for i in range(200)]
    extras = shown.select(["readerId", "articleId"]).slice(0, 200).append_column("when", pa.array(map(str, late)))
    pacsv.write_csv(extras, press / "extras.csv")
    pacsv.write_csv(
        shown.rename_columns(["exposureKey", "readerId", "articleId", "corner", "shownAt", "feedback"]),
        press / "exposures.csv",
    )
    code, output = init(press, "--dry-run")
    assert code == 0, output
    assert "not read: corner" in output
    assert "not used: extras.csv (readerId, articleId, when)" in output
    code, output = init(press, "--conversions", "extras", "--surface", "corner", "--dry-run")
    assert code == 0, output
    found = yaml.safe_load(output)
    assert found["tables"]["impressions"]["columns"]["surface"] == "corner"
    assert {"kind": "extra", "attribution_days": 1} in found["conversions"]


def test_window_ends_where_conversions_are_final(tmp_path: Path) -> None:
    days = [START + timedelta(days=day, minutes=minute) for day in range(30) for minute in range(40)]
    rows = range(len(days))
    shown = pa.table(
        {
            "view_id": [f"v{i}" for i in rows],
            "user": [f"u{i % 7}" for i in rows],
            "item": [f"i{i % 11}" for i in rows],
            "at": [moment.isoformat() for moment in days],
            "click": [i % 2 for i in rows],
        }
    )
    picked = list(rows)[: 28 * 40 : 20]
    came = [(days[i] + timedelta(days=2, hours=1 + i % 5)).isoformat() for i in picked]
    pacsv.write_csv(shown, tmp_path / "views.csv")
    pacsv.write_csv(pa.table({"view_id": [f"v{i}" for i in picked], "at": came}), tmp_path / "orders.csv")
    code, output = init(tmp_path, "--dry-run", "--name", "late")
    assert code == 0, output
    found = yaml.safe_load(output)
    assert found["conversions"] == [{"kind": "order", "attribution_days": 3}]
    assert found["window"]["until"] == START + timedelta(days=27)


def test_yes_and_no_in_semicolon_files_and_users_in_part_are_proposed(press: Path) -> None:
    """Labels of words, a delimiter that is not the suffix's, and a table of a quarter of the readers."""
    shown = pacsv.read_csv(press / "exposures.csv")
    opened = pa.array(["Y" if each == "open" else "N" for each in shown["feedback"].to_pylist()])
    shown = shown.drop_columns(["feedback"]).append_column("opened", opened)
    pacsv.write_csv(shown, press / "exposures.csv", pacsv.WriteOptions(delimiter=";", quoting_style="none"))
    readers = pa.table({"readerId": [f"r{i}" for i in range(15)], "plan": ["free", "paid", "gift"] * 5})
    pacsv.write_csv(readers, press / "readers.csv")
    assert init(press)[0] == 0
    declared = yaml.safe_load((press / "press.yaml").read_text())
    impressions, users = declared["tables"]["impressions"], declared["tables"]["users"]
    assert (impressions["delimiter"], impressions["labels"]) == (";", {"click": {"column": "opened", "equals": "Y"}})
    assert (users["files"], users["covers_all"]) == ("readers.csv", False)
    assert declared["cvr_task"] == "purchase"


def test_file_that_cannot_be_read_is_named_with_its_row(shop: Path) -> None:
    file = shop / "orders.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, "1,2024-03-02 10:00:00,too,many"]) + "\n")
    code, said = init(shop)
    assert code == 2
    assert f"orders.csv, row {len(lines) + 1}, '1,2024-03-02 10:00:00,too,many'" in said
