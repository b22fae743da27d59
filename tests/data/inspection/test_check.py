"""`headwater check`: what is wrong with data is said before anything is trained on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from trainers.cli import app

SHOP = Path(__file__).parents[3] / "docs" / "examples" / "own_data"


@pytest.fixture(name="shop")
def shop_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder)
    return folder / "shop.yaml"


def checked(declaration: Path, *options: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["check", str(declaration), "--json", "--quiet", *options])
    return result.exit_code, json.loads(result.stdout)


def texts(found: dict[str, Any], level: str) -> list[str]:
    return [each["text"] for each in found["findings"] if each["level"] == level]


def change(file: Path, column: str, values: Any) -> None:
    table = pacsv.read_csv(file)
    place = table.column_names.index(column)
    pacsv.write_csv(table.set_column(place, column, values(table)), file)


def edit(declaration: Path, **changes: Any) -> None:
    declaration.write_text(yaml.safe_dump(yaml.safe_load(declaration.read_text()) | changes))


def test_good_data_is_counted_and_can_be_trained_on(shop: Path) -> None:
    code, found = checked(shop)
    assert code == 0
    assert texts(found, "error") == []
    assert (found["num_users"], found["num_pins"]) == (40, 24)
    assert [each["impressions"] for each in found["days"]] == [130] * 10
    assert {each["surface"]: each["impressions"] for each in found["surfaces"]} == {"home": 662, "search": 638}
    order = found["delays"][0]
    assert (order["kind"], order["count"], order["attribution_days"]) == ("order", 243, 2)
    assert 0.9 < order["within"] < 1.0
    country = next(each for each in found["columns"] if each["column"] == "country")
    assert (country["missing"], country["distinct"], country["smallest"]) == (8, 3, "AT")
    assert {(each["task"], each["part"]) for each in found["tasks"]} == {
        (task, part) for task in ("click", "order") for part in ("train", "validation", "test")
    }


def test_bad_rows_are_counted_by_reason(shop: Path) -> None:
    edit(shop, quarantine_share=0.5)
    file = shop.parent / "impressions-2024-03-02.csv"
    change(file, "product", lambda table: pa.array([9999] * 10 + table["product"].to_pylist()[10:]))
    code, found = checked(shop)
    assert code == 0
    assert "impressions: 10 of 1,300 rows set aside: unknown pin_id" in texts(found, "warning")


def test_too_many_bad_rows_are_an_error_with_the_counts(shop: Path) -> None:
    change(shop.parent / "impressions-2024-03-02.csv", "product", lambda table: pc.multiply(table["product"], -1))
    code, found = checked(shop)
    assert code == 2
    assert (
        "bad rows in table impressions must stay at or below a share of 0.01 (got 130 of 1,300"
        in texts(found, "error")[0]
    )
    impressions = next(each for each in found["tables"] if each["table"] == "impressions")
    assert impressions["quarantined"] == {"negative pin_id": 130}


def test_attribute_that_knows_the_label_is_named(shop: Path) -> None:
    # Who opens what is decided by a taste that the users' table gives away.
    users = pacsv.read_csv(shop.parent / "visitors.csv")
    tastes = {name: float(i % 2) for i, name in enumerate(users["visitor"].to_pylist())}
    taste = pa.array(list(tastes.values()))
    pacsv.write_csv(users.append_column("taste", taste), shop.parent / "visitors.csv")
    for file in shop.parent.glob("impressions-*.csv"):
        change(file, "opened", lambda table: pa.array([int(tastes[each]) for each in table["visitor"].to_pylist()]))
    attributes = yaml.safe_load(shop.read_text())["user_attributes"]
    edit(shop, user_attributes=[*attributes, {"name": "taste", "kind": "dense", "type": "float"}])
    _, found = checked(shop)
    assert any(
        text.startswith("user_attributes.taste must not rank click with AUC 0.98 or more (got 1.0000)")
        for text in texts(found, "warning")
    )


def test_window_outside_the_data_is_an_error(shop: Path) -> None:
    window = {name: f"2025-03-0{i}T00:00:00Z" for i, name in enumerate(("features_from", "train_from", "test_from"), 1)}
    edit(shop, window={**window, "until": "2025-03-05T00:00:00Z"})
    code, found = checked(shop)
    assert code == 2
    assert "must hold impressions (got impressions from 2024-03-01 to 2024-03-10)" in texts(found, "error")[0]
    assert len(found["days"]) == 10


def test_task_that_cannot_be_judged_is_an_error(shop: Path) -> None:
    file = shop.parent / "orders.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(tuple("0123456789"))))
    code, found = checked(shop)
    assert code == 2
    assert any("task order (cvr_task) must have positives and negatives" in text for text in texts(found, "error"))


def test_label_that_is_logged_otherwise_from_a_day_on_is_named(shop: Path) -> None:
    for day in ("06", "07", "08", "09", "10"):
        file = shop.parent / f"impressions-2024-03-{day}.csv"
        change(file, "action", lambda table: pa.array(["none"] * (table.num_rows - 1) + ["save"]))
    _, found = checked(shop)
    assert any(
        text.startswith("label saved: its rate goes from") and "on 2024-03-06; was it logged alike?" in text
        for text in texts(found, "warning")
    )


def test_late_conversions_are_named(shop: Path) -> None:
    change(shop.parent / "orders.csv", "ordered_at", lambda table: later(table["ordered_at"]))
    _, found = checked(shop)
    assert any("come within its attribution window of 2 days" in text for text in texts(found, "warning"))


def later(moments: pa.ChunkedArray) -> pa.Array:
    """The same moments five days on."""
    days = pa.scalar(5 * 86_400, pa.duration("s"))
    return pc.strftime(pc.add(moments.cast(pa.timestamp("s")), days), format="%Y-%m-%d %H:%M:%S")


def test_page_shows_findings_rates_and_columns(shop: Path, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    result = CliRunner().invoke(app, ["check", str(shop), "--html", str(page), "--quiet"])
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "can be trained on; look at 2 warnings first." in text
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert text.count("<td>impressions</td>") == 7
    assert "can be trained on; look at 2 warnings first." in result.stdout


def test_declaration_that_cannot_be_read_is_refused(shop: Path) -> None:
    edit(shop, labels=[])
    result = CliRunner().invoke(app, ["check", str(shop)])
    assert result.exit_code == 2
    assert "labels" in result.output


def test_rows_set_aside_can_be_kept(shop: Path, tmp_path: Path) -> None:
    change(shop.parent / "impressions-2024-03-02.csv", "product", lambda table: pc.multiply(table["product"], -1))
    kept = tmp_path / "kept"
    code, found = checked(shop, "--keep", str(kept))
    assert code == 2
    file = kept / "event_log.rejected" / "quarantine" / "impressions.parquet"
    assert str(file) in texts(found, "error")[0]
    assert pq.read_table(file).num_rows == 130
    result = CliRunner().invoke(app, ["check", str(shop), "--keep", str(kept)])
    assert result.exit_code == 2
    assert "--keep must be a new or empty folder" in result.output
