"""A user's own files, declared in YAML."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from trainers.data import own_data
from trainers.data.adapters import AdapterOptions
from trainers.data.dataset import SpecError
from trainers.data.event_log import EventLog, EventLogError, IngestReport, ingest

NOW = datetime(2024, 2, 1, tzinfo=UTC)
EVERYTHING = (datetime(2023, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))

IMPRESSIONS_CSV = """\
id,uid,item,page,shown,stars,action
1,7,70,home,1704186000,5,buy
2,8,70,home,1704189600.5,3,look
3,7,71,search,1704276000,,buy
4,8,71,home,1704448800,4,
"""
ORDERS_CSV = "impression,when,amount\n1,2024-01-03 08:00:00,12.5\n"
USERS_CSV = "uid,country,since\n7,AT,2023-05-01\n8,DE,2023-06-01\n"
PINS_CSV = 'item,tags,content\n70,red|round,"[0.5, 1]"\n71,,"[0, 0.25]"\n'


def declaration() -> dict[str, Any]:
    """A shop with four CSV files whose columns have names of their own."""
    return {
        "name": "shop",
        "title": "My shop",
        "impression": "a product card on a page",
        "click": "four stars or more",
        "labels": ["click", "bought"],
        "conversions": [{"kind": "order", "attribution_days": 3}],
        "tasks": [
            {"name": "click", "label": "click", "domain": "engagement"},
            {"name": "order", "label": "order", "domain": "conversion", "given": "click"},
        ],
        "ctr_task": "click",
        "cvr_task": "order",
        "user_attributes": [{"name": "country", "kind": "categorical"}],
        "pin_attributes": [
            {"name": "tags", "kind": "multi_valued"},
            {"name": "content", "kind": "vector", "type": "float", "dim": 2},
        ],
        "window": {
            "features_from": "2024-01-02T00:00:00Z",
            "train_from": "2024-01-03T00:00:00Z",
            "test_from": "2024-01-05T00:00:00Z",
            "until": "2024-01-06T00:00:00Z",
        },
        "tables": tables(),
    }


def tables() -> dict[str, Any]:
    """Where the shop's tables come from."""
    return {
        "impressions": {
            "files": "impressions*.csv",
            "columns": {
                "impression_id": "id",
                "user_id": "uid",
                "pin_id": "item",
                "surface": "page",
                "event_timestamp": "shown",
            },
            "timestamp": {"format": "unix_s"},
            "labels": {
                "click": {"column": "stars", "at_least": 4},
                "bought": {"column": "action", "equals": "buy"},
            },
        },
        "conversions": {
            "files": ["orders.csv"],
            "columns": {"impression_id": "impression", "event_timestamp": "when", "value": "amount"},
            "constants": {"kind": "order"},
            "timestamp": {"timezone": "UTC"},
        },
        "users": {
            "files": "users.csv",
            "columns": {"user_id": "uid", "event_timestamp": "since"},
            "timestamp": {"timezone": "UTC"},
        },
        "pins": {
            "files": "pins.csv",
            "columns": {"pin_id": "item"},
            "separators": {"tags": "|"},
            "holds_from": "2023-01-01T00:00:00Z",
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the shop's files."""
    files = {"impressions": IMPRESSIONS_CSV, "orders": ORDERS_CSV, "users": USERS_CSV, "pins": PINS_CSV}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def ingested(
    folder: Path, declared: dict[str, Any], options: AdapterOptions | None = None
) -> tuple[IngestReport, EventLog]:
    (folder / "shop.yaml").write_text(yaml.safe_dump(declared))
    spec, adapter = own_data.load(folder / "shop.yaml")
    (folder / "staging").mkdir(exist_ok=True)
    adapter.stage(folder / "staging", options or AdapterOptions(), lambda _message, _share: None)
    return ingest(spec, folder / "staging", folder / "log", now=NOW), EventLog(folder / "log")


def test_csv_files_become_an_event_log(folder: Path) -> None:
    report, log = ingested(folder, declaration())
    assert sum(table.quarantined for table in report.tables.values()) == 0
    rows = log.impressions(*EVERYTHING)
    assert rows["event_timestamp"].to_pylist()[:2] == [
        datetime(2024, 1, 2, 9, tzinfo=UTC),
        datetime(2024, 1, 2, 10, 0, 0, 500_000, tzinfo=UTC),
    ]
    assert rows["user_id"].to_pylist() == [7, 8, 7, 8]
    assert rows["click"].to_pylist() == [1, 0, None, 1]
    assert rows["bought"].to_pylist() == [1, 0, 1, None]
    assert log.conversions(*EVERYTHING).to_pylist()[0] == {
        "impression_id": 1,
        "user_id": 7,
        "pin_id": 70,
        "surface": "home",
        "event_timestamp": datetime(2024, 1, 3, 8, tzinfo=UTC),
        "kind": "order",
        "value": 12.5,
    }


def test_csv_attributes_are_read_with_their_types(folder: Path) -> None:
    _, log = ingested(folder, declaration())
    assert log.users_path is not None
    assert log.pins_path is not None
    assert pq.read_table(log.users_path).to_pylist()[0] == {
        "user_id": 7,
        "event_timestamp": datetime(2023, 5, 1, tzinfo=UTC),
        "country": "AT",
    }
    pins = pq.read_table(log.pins_path)
    assert pins["tags"].to_pylist() == [["red", "round"], None]
    assert pins["content"].to_pylist() == [[0.5, 1.0], [0.0, 0.25]]
    assert set(pins["event_timestamp"].to_pylist()) == {datetime(2023, 1, 1, tzinfo=UTC)}


def test_parquet_with_canonical_names_needs_no_mapping(folder: Path) -> None:
    declared = declaration()
    declared["labels"] = ["click"]
    when = pa.array([datetime(2024, 1, 2, 9, tzinfo=UTC), datetime(2024, 1, 5, 9, tzinfo=UTC)])
    table = pa.table(
        {"impression_id": [1, 4], "user_id": [7, 8], "pin_id": [70, 71], "surface": ["a", "b"], "click": [True, False]}
    )
    pq.write_table(table.append_column("event_timestamp", when), folder / "shown.parquet")
    declared["tables"]["impressions"] = {"files": "shown.parquet", "columns": {"impression_id": "impression_id"}}
    _, log = ingested(folder, declared)
    assert log.impressions(*EVERYTHING)["click"].to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("unit", "number"), [("unix_s", 1704186000), ("unix_ms", 1704186000000), ("unix_s", "1704186000.000")]
)
def test_unix_times_are_read_in_their_unit(folder: Path, unit: str, number: int | str) -> None:
    declared = declaration()
    columns = {
        "id": [1],
        "uid": [7],
        "item": [70],
        "page": ["home"],
        "shown": [number],
        "stars": [5],
        "action": ["buy"],
    }
    pq.write_table(pa.table(columns), folder / "shown.parquet")
    declared["tables"]["impressions"] |= {"files": "shown.parquet", "timestamp": {"format": unit}}
    _, log = ingested(folder, declared)
    assert log.impressions(*EVERYTHING)["event_timestamp"].to_pylist() == [datetime(2024, 1, 2, 9, tzinfo=UTC)]


def test_ids_follow_the_rows_of_the_sorted_files(folder: Path) -> None:
    declared = declaration()
    declared["conversions"] = []
    declared["tasks"] = declared["tasks"][:1]
    del declared["cvr_task"], declared["tables"]["conversions"]
    del declared["tables"]["impressions"]["columns"]["impression_id"]
    header, *rows = IMPRESSIONS_CSV.splitlines()
    (folder / "impressions.csv").unlink()
    for name, part in (("impressions-b.csv", rows[2:]), ("impressions-a.csv", rows[:2])):
        (folder / name).write_text("\n".join([header, *part]) + "\n")
    _, log = ingested(folder, declared)
    ids = log.impressions(*EVERYTHING)
    assert dict(zip(ids["impression_id"].to_pylist(), ids["pin_id"].to_pylist(), strict=True)) == {
        1: 70,
        2: 70,
        3: 71,
        4: 71,
    }


def test_ids_of_parquet_rows_depend_on_file_and_row(folder: Path) -> None:
    declared = declaration()
    declared["conversions"] = []
    declared["tasks"] = declared["tasks"][:1]
    del declared["cvr_task"], declared["tables"]["conversions"]
    del declared["tables"]["impressions"]["columns"]["impression_id"]
    for name, hour in (("shown-b", 10), ("shown-a", 9)):
        columns = {"uid": [7, 8], "item": [70, 71], "page": ["a", "a"], "stars": [5, 1], "action": ["buy", "look"]}
        shown = {"shown": [1704153600 + hour * 3600, 1704153601 + hour * 3600]}
        pq.write_table(pa.table(columns | shown), folder / f"{name}.parquet")
    declared["tables"]["impressions"]["files"] = "shown-*.parquet"
    _, log = ingested(folder, declared)
    assert log.impressions(*EVERYTHING)["impression_id"].to_pylist() == [0, 1, 1 << 40, (1 << 40) + 1]


def test_compressed_files_are_read(folder: Path) -> None:
    declared = declaration()
    (folder / "impressions.csv").unlink()
    (folder / "impressions.csv.gz").write_bytes(gzip.compress(IMPRESSIONS_CSV.encode()))
    declared["tables"]["impressions"]["files"] = "impressions.csv.gz"
    report, _ = ingested(folder, declared)
    assert report.tables["impressions"].kept == 4


def test_text_keys_become_numbers_with_a_dictionary(folder: Path) -> None:
    declared = declaration()
    declared["keys"] = {"user": "string"}
    (folder / "impressions.csv").write_text(IMPRESSIONS_CSV.replace(",7,", ",anna,").replace(",8,", ",bob,"))
    (folder / "users.csv").write_text(USERS_CSV.replace("\n7,", "\nanna,").replace("\n8,", "\nbob,"))
    report, log = ingested(folder, declared)
    assert report.tables["impressions"].kept == 4
    keys = {row["key"]: row["user_id"] for row in pq.read_table(log.path / "keys_user.parquet").to_pylist()}
    assert set(keys) == {"anna", "bob"}
    found = log.impressions(*EVERYTHING)["user_id"].to_pylist()
    assert found == [keys["anna"], keys["bob"], keys["anna"], keys["bob"]]
    assert min(found) >= 0


@pytest.mark.parametrize(("seed", "user", "orders"), [(2, 7, 1), (0, 8, 0)])
def test_scale_keeps_whole_users_and_their_conversions(folder: Path, seed: int, user: int, orders: int) -> None:
    report, log = ingested(folder, declaration(), AdapterOptions(seed=seed, scale=0.5))
    assert log.impressions(*EVERYTHING)["user_id"].to_pylist() == [user, user]
    assert {name: table.kept for name, table in report.tables.items()} == {
        "users": 1,
        "pins": 2,
        "impressions": 2,
        "conversions": orders,
    }


def test_unreadable_values_are_counted_and_shown(folder: Path) -> None:
    text = IMPRESSIONS_CSV.replace("1704448800,4,", "soon,4,").replace("home,1704189600.5,3", "home,1704189600.5,three")
    (folder / "impressions.csv").write_text(text)
    report, log = ingested(folder, declaration() | {"quarantine_share": 0.6})
    assert report.tables["impressions"].reasons == {
        "label click not 0, 1 or null": 1,
        "wrong type: event_timestamp": 1,
    }
    rows = pq.read_table(log.path / "quarantine" / "impressions.parquet")
    assert rows["click"].to_pylist() == ["three", "1"]
    assert rows["event_timestamp"].to_pylist()[1] == "soon"


def test_naive_iso_texts_need_a_declared_zone(folder: Path) -> None:
    declared = declaration()
    del declared["tables"]["conversions"]["timestamp"]
    with pytest.raises(EventLogError, match=r"conversions.event_timestamp must hold timestamps.*timezone"):
        ingested(folder, declared)


def test_naive_parquet_timestamps_need_a_declared_zone(folder: Path) -> None:
    declared = declaration()
    when = pa.array([datetime(2024, 1, 3, 8)], pa.timestamp("us"))
    pq.write_table(pa.table({"impression": [1], "when": when, "amount": [1.0]}), folder / "orders.parquet")
    declared["tables"]["conversions"] |= {"files": "orders.parquet"}
    _, log = ingested(folder, declared)
    assert log.conversions(*EVERYTHING)["event_timestamp"].to_pylist() == [datetime(2024, 1, 3, 8, tzinfo=UTC)]
    del declared["tables"]["conversions"]["timestamp"]
    with pytest.raises(SpecError, match=r"tables.conversions.timestamp must say `timezone: UTC` \(got naive TIMESTAMP"):
        ingested(folder, declared)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The declaration with one key replaced; none removes it."""
    declared = declaration()
    *parents, last = path.split(".")
    place: Any = declared
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return declared


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", "red", "shop.yaml: colour is not a known key \\(got 'red'\\); remove it"),
        ("tables.impressions.colour", "red", "tables.impressions.colour is not a known key \\(got 'red'\\)"),
        ("tables.impressions", None, "shop.yaml: tables.impressions is required"),
        ("tables.impressions.timestamp", {"format": "excel"}, "timestamp.format: .*\\(got 'excel'\\)"),
        (
            "tables.impressions.files",
            "shown-*.csv",
            "impressions.files must match at least one.*none for 'shown-\\*.csv'",
        ),
        ("tables.impressions.files", ["users.csv", "shop.yaml"], "files must all be of one kind.*got .csv, .yaml"),
        ("tables.impressions.columns.user_id", "user", "columns.user_id must be a column.*got 'user', have id, uid"),
        ("tables.impressions.columns.usr", "uid", "columns has no column 'usr' \\(known are .*user_id"),
        ("tables.impressions.labels.click", "clicked", "labels.click must be a column of the files \\(got 'clicked'"),
        ("tables.impressions.labels.love", "stars", "labels has no column 'love' \\(known are bought, click\\)"),
        ("tables.impressions.labels.click", {"column": "stars", "at_least": 4, "equals": 5}, "at_least or equals"),
        ("tables.users", None, "tables must have users because some are declared"),
        ("tables.pins.holds_from", None, "tables.pins.columns.event_timestamp must be a column"),
        ("tables.pins.holds_from", "2023-01-01", "holds_from: a moment must say its time zone .*append Z for UTC"),
        ("tables.impressions.columns.impression_id", None, "must map impression_id because conversions refer to it"),
        ("conversions", [], "label of task order must be one of click, bought \\(got 'order'\\)"),
        (
            "histories",
            ["watched"],
            "histories and tables.histories must name the same \\(got \\['watched'\\] and \\[\\]",
        ),
        ("window.until", "2024-01-04T00:00:00Z", "window: window must increase"),
    ],
)
def test_yaml_mistakes_name_file_key_value_and_remedy(folder: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ingested(folder, changed(path, value))


def test_text_keys_without_their_declaration_are_refused_with_the_remedy(folder: Path) -> None:
    (folder / "users.csv").write_text("uid,country,since\nanna,AT,2023-05-01\n")
    with pytest.raises(EventLogError, match=r"users.user_id must hold BIGINT.*'anna'.*keys: {user: string}"):
        ingested(folder, declaration())


def test_source_files_tell_what_the_data_is_made_of(folder: Path) -> None:
    (folder / "shop.yaml").write_text(yaml.safe_dump(declaration()))
    _, adapter = own_data.load(folder / "shop.yaml")
    names = sorted(path.name for path in adapter.source_files())
    assert names == ["impressions.csv", "orders.csv", "pins.csv", "users.csv"]


def test_worked_example_of_the_documentation_runs(tmp_path: Path) -> None:
    spec, adapter = own_data.load(Path(__file__).parents[2] / "docs" / "examples" / "own_data" / "shop.yaml")
    adapter.stage(tmp_path, AdapterOptions(), lambda _message, _share: None)
    report = ingest(spec, tmp_path, tmp_path / "log", now=datetime(2024, 4, 1, tzinfo=UTC))
    assert report.tables["impressions"].kept == 1300
    assert sum(table.quarantined for table in report.tables.values()) == 0
    assert report.label_rates["order"] is not None
    assert report.label_rates["order"] > 0


def test_conversions_without_an_impression_go_to_the_latest_of_their_user_and_pin(folder: Path) -> None:
    shown = (
        "uid,item,page,shown,stars,action\n"
        "7,70,home,1704186000,5,buy\n"
        "7,70,home,1704276000,3,look\n"
        "8,71,home,1704448800,4,\n"
    )
    (folder / "impressions.csv").write_text(shown)
    orders = (
        "who,what,when,amount\n"
        "7,70,2024-01-02 12:00:00,1\n"  # after the first alone
        "7,70,2024-01-03 12:00:00,2\n"  # after both: the second
        "8,71,2024-01-12 08:00:00,4\n"  # outside its three days
        "7,71,2024-01-05 08:00:00,8\n"  # never shown
    )
    (folder / "orders.csv").write_text(orders)
    declared = tables()
    del declared["impressions"]["columns"]["impression_id"]
    declared["conversions"]["columns"] = {"user_id": "who", "pin_id": "what", "event_timestamp": "when"}
    declared["conversions"]["columns"]["value"] = "amount"
    report, log = ingested(folder, declaration() | {"tables": declared})
    kept = log.conversions(*EVERYTHING)
    assert dict(zip(kept["value"].to_pylist(), kept["impression_id"].to_pylist(), strict=True)) == {1.0: 1, 2.0: 2}
    assert report.tables["conversions"].reasons == {"conversion of no impression": 2}
    assert report.tables["conversions"].faulty_share == 0.0
