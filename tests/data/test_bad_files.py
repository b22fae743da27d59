"""What may be wrong with a person's own files: the error names file, row, column, value and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.shop_files import Row, Shop
from trainers.data import own_data
from trainers.data.adapters import AdapterOptions
from trainers.data.event_log import ingest
from trainers.data.ingest import log_progress

NOW = datetime(2024, 6, 1, tzinfo=UTC)
DAY = "impressions-2024-03-10.csv"
HEADER = b"id,visitor,product,page,shown_at,opened,action\n"


def third(**values: str) -> Callable[[list[Row]], list[Row]]:
    """The third row of a file, which is row 4 with the header, changed."""

    def change(rows: list[Row]) -> list[Row]:
        rows[2] |= values
        return rows

    return change


def line(name: str, number: int, text: str) -> Callable[[Shop], Shop]:
    """One line of a file written anew, the header being line 1."""

    def change(shop: Shop) -> Shop:
        file = shop.yaml.parent / name
        lines = file.read_text().splitlines()
        lines[number - 1] = text
        return shop.text(name, "\n".join(lines).encode())

    return change


def bring_in(shop: Shop, folder: Path) -> None:
    """Read the shop's files and check every row, where not one bad row is allowed."""
    spec, adapter = own_data.load(shop.declare(quarantine_share=0.0).yaml)
    staging = folder / "staging"
    staging.mkdir()
    adapter.stage(staging, AdapterOptions(), log_progress)
    ingest(spec, staging, folder / "event_log", now=NOW)


CASES = {
    "negative id": (
        lambda shop: shop.rows(DAY, third(product="-7")),
        ["negative pin_id 1 such as '-7'", f"({DAY}, row 4, column product)", "fix the source"],
    ),
    "id that is no number": (
        lambda shop: shop.rows(DAY, third(product="rye bread")),
        ["wrong type: pin_id 1 such as 'rye bread'", f"({DAY}, row 4, column product)", "fix the source"],
    ),
    "fraction as id": (
        lambda shop: shop.rows(DAY, third(product="515.5")),
        ["wrong type: pin_id 1 such as '515.5'", f"({DAY}, row 4, column product)"],
    ),
    "id missing": (
        lambda shop: shop.rows(DAY, third(visitor="")),
        ["null user_id 1", f"({DAY}, row 4, column visitor)", "fix the source"],
    ),
    "unknown user": (
        lambda shop: shop.rows(DAY, third(visitor="nobody")),
        ["unknown user_id 1 such as 'nobody'", f"({DAY}, row 4, column visitor)"],
    ),
    "unknown Pin": (
        lambda shop: shop.rows(DAY, third(product="999")),
        ["unknown pin_id 1 such as '999'", f"({DAY}, row 4, column product)"],
    ),
    "impression twice": (
        lambda shop: shop.rows(DAY, lambda rows: [*rows, rows[0]]),
        ["duplicate impression_id 1 such as '1171'", f"({DAY}, row 132, column id)"],
    ),
    "label that is neither 0 nor 1": (
        lambda shop: shop.rows(DAY, third(opened="2")),
        ["label click not 0, 1 or null 1 such as '2'", f"({DAY}, row 4, column opened)"],
    ),
    "label in words": (
        lambda shop: shop.rows(DAY, third(opened="maybe")),
        ["label click not 0, 1 or null 1 such as 'maybe'", f"({DAY}, row 4, column opened)"],
    ),
    "moment that is none": (
        lambda shop: shop.rows(DAY, third(shown_at="soon")),
        ["event_timestamp 1 such as 'soon'", f"({DAY}, row 4, column shown_at)"],
    ),
    "moment in the future": (
        lambda shop: shop.rows(DAY, third(shown_at="4102444800000")),
        ["future event_timestamp 1 such as '2100-01-01", f"({DAY}, row 4, column shown_at)"],
    ),
    "surface missing": (
        lambda shop: shop.rows(DAY, third(page="")),
        ["null surface 1", f"({DAY}, row 4, column page)"],
    ),
    "conversion without its impression": (
        lambda shop: shop.rows("orders.csv", third(impression="999999", ordered_at="2024-03-06 12:00:00")),
        ["conversion without its impression 1 such as '999999'", "(orders.csv, row 4, column impression)"],
    ),
    "conversion before its impression": (
        lambda shop: shop.rows("orders.csv", third(ordered_at="2024-03-01 00:00:01")),
        ["conversion before its impression 1", "(orders.csv, row 4, column impression)"],
    ),
    "value that is no number": (
        lambda shop: shop.rows("orders.csv", third(amount="12,50 EUR")),
        ["wrong type: value 1 such as '12,50 EUR'", "(orders.csv, row 4, column amount)"],
    ),
    "attribute that is no number": (
        lambda shop: shop.rows("products.csv", third(price="cheap")),
        ["wrong type: price 1 such as 'cheap'", "(products.csv, row 4, column price)"],
    ),
    "attribute that is infinite": (
        lambda shop: shop.rows("products.csv", third(price="inf")),
        ["price not finite 1 such as 'inf'", "(products.csv, row 4, column price)"],
    ),
    "attribute that is nowhere a number": (
        lambda shop: shop.each("products.csv", price="cheap"),
        ["pins.price must hold DOUBLE values", "'cheap' (products.csv, row 2, column price)", "declare another type"],
    ),
    "row with a value too few": (
        line(DAY, 5, "1173,v001,515"),
        ["tables.impressions", f"{DAY}, row 5, '1173,v001,515'", "Columns: 7 Found: 3", "correct the row"],
    ),
    "row with a value too many": (
        line("products.csv", 2, "501,Rye, dark,3.5,a|b,2024-02-01,x,y"),
        ["products.csv, row 2, '501,Rye, dark", "quote values that hold the delimiter"],
    ),
    "quote that is not closed": (
        line("products.csv", 2, '501,"Rye,3.5,a|b,2024-02-01'),
        ["products.csv, row 2", "close the quote"],
    ),
    "not UTF-8": (
        lambda shop: shop.text(DAY, HEADER + b"1,v\xfc,1,home,1,0,none\n"),
        [DAY, "UTF-8", "byte 0xfc", "save the file as UTF-8"],
    ),
    "not UTF-8 far below": (
        lambda shop: shop.text(
            DAY, HEADER + b"1,v001,515,home,1710028800000,0,none\n" * 2000 + b"2,v\xfc,5,home,1,0,none\n"
        ),
        [f"{DAY}, row 2002", "not utf-8", "save the file as UTF-8"],
    ),
    "other delimiter": (
        lambda shop: shop.text("products.csv", b"product;title;price;tags;listed_on\n501;Rye;3.5;a;2024-02-01\n"),
        ["products.csv, row 1", "'product;title;price;tags;listed_on'", "`delimiter: ';'`"],
    ),
    "column twice": (
        line("products.csv", 1, "product,title,price,price,listed_on"),
        ["products.csv, row 1", "got 'price' twice", "rename one"],
    ),
    "column that is not there": (
        lambda shop: shop.column("impressions", user_id="user"),
        ["shop.yaml: tables.impressions.columns.user_id", "got 'user', have id, visitor", "map the right column"],
    ),
    "file that is not there": (
        lambda shop: shop.without("products.csv"),
        ["shop.yaml: tables.pins.files", "got none for 'products.csv'", "check the path"],
    ),
}


@pytest.mark.parametrize(("spoil", "words"), CASES.values(), ids=CASES.keys())
def test_error_names_file_row_column_value_and_remedy(
    tmp_path: Path, spoil: Callable[[Shop], Shop], words: list[str]
) -> None:
    shop = spoil(Shop(tmp_path / "shop"))
    with pytest.raises(ValueError, match="; ") as refused:
        bring_in(shop, tmp_path)
    assert [word for word in words if word not in str(refused.value)] == [], str(refused.value)


def test_quarantine_says_where_each_bad_row_stands(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop").rows(DAY, third(product="-7"))
    with pytest.raises(ValueError, match="negative pin_id"):
        bring_in(shop, tmp_path)
    (row,) = pq.read_table(tmp_path / "event_log.rejected/quarantine/impressions.parquet").to_pylist()
    assert (row["file"], row["row"], row["pin_id"], row["reason"]) == (DAY, 4, "-7", "negative pin_id")


def test_users_that_a_table_lacks_have_no_attributes_where_it_says_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop").rows("visitors.csv", lambda rows: rows[:5]).table("users", covers_all=False)
    bring_in(shop, tmp_path)
    users = pq.read_table(tmp_path / "event_log/users.parquet")
    impressions = pq.read_table(tmp_path / "event_log/impressions")
    assert set(users["user_id"].to_pylist()) >= set(impressions["user_id"].to_pylist())
    assert users["country"].null_count == len(users) - 5


def test_semicolons_are_read_where_they_are_declared(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop").table("users", delimiter=";")
    file = shop.yaml.parent / "visitors.csv"
    file.write_text(file.read_text().replace(",", ";"))
    bring_in(shop, tmp_path)
    assert pq.read_table(tmp_path / "event_log/users.parquet")["country"].null_count == 8
