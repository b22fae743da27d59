"""MovieLens 100K: small, temporal, and known to everyone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.connection import connect, literal, moment
from trainers.data.dataset import Attribute, DatasetSpec, Task, Window
from trainers.data.ingest import Progress
from trainers.data.wheels import wheel_files

IMPRESSION = "A rating of a film by a user, at the moment of the rating."
CLICK = "A rating of 4 or 5 stars."
CONVERSION = "None that arrives later; `love`, a rating of 5 stars given a click, stands in for it."

_REQUIREMENT = "recbole==1.2.1"
_LOG_START = datetime(1997, 9, 20, tzinfo=UTC)


class MovieLens100K:
    __doc__ = f"""MovieLens 100K, read from the wheel of `recbole`.

    Impression: {IMPRESSION}
    Click: {CLICK}
    Conversion: {CONVERSION}

    Stamps are Unix seconds. Most users rate everything in one sitting, so a user of the test days is often new. The
    ratings run from 20 September 1997 to 22 April 1998; the last 25 days are the test, the six weeks before them the
    training. Users and films carry no time and are taken to hold from the first day.
    """

    name = "movielens_100k"

    def spec(self, options: AdapterOptions) -> DatasetSpec:  # noqa: ARG002
        """Declaration of the dataset: train 16 February to 29 March, test 30 March to 23 April 1998."""
        return DatasetSpec(
            name=self.name,
            title="MovieLens 100K",
            license="research use, see the GroupLens README",
            citation="Harper and Konstan, The MovieLens Datasets, TiiS 2015, doi 10.1145/2827872",
            impression=IMPRESSION,
            click=CLICK,
            conversion=CONVERSION,
            labels=("click", "love"),
            tasks=(
                Task(name="click", label="click", domain="engagement"),
                Task(name="love", label="love", domain="conversion", given="click"),
            ),
            ctr_task="click",
            cvr_task="love",
            user_attributes=(
                Attribute(name="age", kind="dense", type="float"),
                Attribute(name="gender", kind="categorical"),
                Attribute(name="occupation", kind="categorical"),
            ),
            pin_attributes=(
                Attribute(name="title", kind="categorical"),
                Attribute(name="release_year", kind="dense", type="float"),
                Attribute(name="genres", kind="multi_valued"),
            ),
            pin_title="title",
            window=Window(
                features_from=datetime(1998, 1, 5, tzinfo=UTC),
                train_from=datetime(1998, 2, 16, tzinfo=UTC),
                test_from=datetime(1998, 3, 30, tzinfo=UTC),
                until=datetime(1998, 4, 24, tzinfo=UTC),
            ),
        )

    def stage(self, staging: Path, options: AdapterOptions, progress: Progress) -> None:
        """Write impressions, users and Pins.

        Raises:
            WheelError: The wheel with the data could not be fetched.
        """
        progress("fetching the wheel with the data", 0.0)
        folder = wheel_files(_REQUIREMENT, "recbole/dataset_example/ml-100k")
        queries = {
            "impressions": _impressions(_source(folder, "inter"), options),
            "users": _users(_source(folder, "user"), options),
            "pins": _pins(_source(folder, "item")),
        }
        with connect(temp=staging / "spill") as connection:
            for table, query in queries.items():
                progress(f"staging {table}", 0.5)
                connection.execute(f"COPY ({query}) TO {literal(staging / f'{table}.parquet')} (FORMAT parquet)")


def _source(folder: Path, suffix: str) -> str:
    """A tab-separated file of texts whose header says `name:type`."""
    path = folder / f"ml-100k.{suffix}"
    return f"read_csv({literal(path)}, delim = '\t', header = true, quote = '', all_varchar = true)"


def _impressions(source: str, options: AdapterOptions) -> str:
    stamp = "make_timestamp(\"timestamp:float\"::BIGINT * 1000000) AT TIME ZONE 'UTC'"
    stars = '"rating:float"::DOUBLE'
    user, pin = '"user_id:token"', '"item_id:token"'
    return (
        f"SELECT row_number() OVER (ORDER BY {stamp}, {user}::BIGINT, {pin}::BIGINT) AS impression_id, "
        f"{user}::BIGINT AS user_id, {pin}::BIGINT AS pin_id, 'web' AS surface, "
        f"{stamp} AS event_timestamp, ({stars} >= 4)::TINYINT AS click, ({stars} = 5)::TINYINT AS love "
        f"FROM {source} WHERE {options.keeps(user)}"
    )


def _users(source: str, options: AdapterOptions) -> str:
    key = '"user_id:token"'
    return (
        f"SELECT {key}::BIGINT AS user_id, {moment(_LOG_START)} AS event_timestamp, "
        '"age:token"::DOUBLE AS age, "gender:token" AS gender, "occupation:token" AS occupation '
        f"FROM {source} WHERE {options.keeps(key)}"
    )


def _pins(source: str) -> str:
    return (
        f'SELECT "item_id:token"::BIGINT AS pin_id, {moment(_LOG_START)} AS event_timestamp, '
        '"movie_title:token_seq" AS title, TRY_CAST("release_year:token" AS DOUBLE) AS release_year, '
        f"string_split(\"class:token_seq\", ' ') AS genres FROM {source}"
    )
