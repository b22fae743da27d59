"""The stores' benchmark at tiny sizes: every way gives the same answer, limits hold, and rows are whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.figures.results import load
from tests.benchmarks.store_paths import made_data, materialize, online, point_in_time
from tests.benchmarks.store_paths.journal import Journal, Measured
from tests.benchmarks.store_paths.plan import NAMES, OURS, RAW, STOCK, Case, cases
from tests.benchmarks.store_paths.process import Limits, StoppedError, Worker
from tests.benchmarks.store_paths.runner import Run, run_case
from tests.benchmarks.store_paths.summary import identities, result_rows
from tests.benchmarks.store_paths.worker import Repetition, Setup, _reason
from tests.benchmarks.stores import Figures, chosen
from tests.feature_repo.stores.servers import running

TINY = 0.0005
LIMITS = Limits(memory_gb=4.0, seconds=120.0)


@pytest.fixture(name="redis_port", scope="module")
def redis_port_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running(tmp_path_factory.mktemp("redis")) as port:
        yield port


def case_of(name: str, **params: str | int) -> Case:
    """The first tiny case of a name with some params."""
    return next(case for case in cases(TINY) if case.rows[0].name == name and params.items() <= case.params.items())


def setup_of(case: Case, folder: Path, redis_port: int = 0, **params: Any) -> Setup:
    data = folder / "data"
    made_data.make(case.path, data, dict(case.params))
    port = redis_port if case.params["store"] == "redis" else 0
    return Setup(folder=folder / "way", data=data, params={**case.params, **params}, redis_port=port)


@pytest.mark.parametrize("store", ["redis", "sqlite", "milvus"])
def test_all_ways_materialize_all_rows(tmp_path: Path, redis_port: int, store: str) -> None:
    if store == "milvus":
        pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")
    case = case_of("materialize", store=store)
    setup = setup_of(case, tmp_path, redis_port)
    answers = [materialize.WAYS[variant](setup).repeat(0).answer for variant in (OURS, STOCK, RAW)]
    assert answers == [{"rows": 50.0}] * 3


@pytest.mark.parametrize("days", [10, 90])
def test_all_ways_join_the_same_rows(tmp_path: Path, days: int) -> None:
    case = case_of("point_in_time", days=days, result="arrow")
    setup = setup_of(case, tmp_path)
    ours, stock, raw = (point_in_time.WAYS[variant](setup).repeat(0).answer for variant in (OURS, STOCK, RAW))
    assert ours == stock == raw
    assert ours["rows"] == 500
    assert 0 < ours["users found"] < 500


def test_join_to_parquet_has_all_rows(tmp_path: Path) -> None:
    case = case_of("point_in_time", result="parquet")
    answer = point_in_time.WAYS[OURS](setup_of(case, tmp_path)).repeat(0).answer
    assert answer == {"rows": 2500.0}


@pytest.mark.parametrize("store", ["redis", "sqlite"])
def test_all_ways_read_the_same_vectors(tmp_path: Path, redis_port: int, store: str) -> None:
    case = case_of("read_matrix", store=store)
    setup = setup_of(case, tmp_path, redis_port, pins=7, calls=3)
    online.WAYS["fill"](setup)
    found = [online.WAYS[variant](setup).repeat(1) for variant in case.variants]
    assert [len(repetition.seconds) for repetition in found] == [3] * len(case.variants)
    sums = [repetition.answer["sum"] for repetition in found]
    assert sums == pytest.approx([sums[0]] * len(sums))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(memory_gb=0.001, seconds=60.0), r"killed at 0\.001 GB"),
        (Limits(memory_gb=4.0, seconds=0.0), "stopped after 0 s"),
    ],
)
def test_way_is_stopped_over_a_limit(tmp_path: Path, limits: Limits, reason: str) -> None:
    setup = Setup(folder=tmp_path / "way", data=tmp_path, params={}, redis_port=0)
    with pytest.raises(StoppedError, match=reason):
        Worker("materialize", STOCK, setup, limits)


def test_way_that_fails_says_why(tmp_path: Path) -> None:
    setup = Setup(folder=tmp_path / "way", data=tmp_path / "none", params={"store": "sqlite", "dim": 4}, redis_port=0)
    with Worker("materialize", STOCK, setup, LIMITS) as way, pytest.raises(StoppedError, match=r"^fails: .*none"):
        way.repeat(0)


def test_error_of_many_lines_gives_its_details_in_one() -> None:
    class RemoteError(Exception):
        def details(self) -> str:
            return "SERVER: Received message\n larger than max"

    assert _reason(RemoteError("<RPC that ended with:\n status")) == "SERVER: Received message larger than max"
    assert _reason(ValueError("two\nlines")) == "two lines"
    assert _reason(ValueError()) == "ValueError"


@pytest.mark.slow
def test_case_in_processes_gives_a_row_and_is_not_measured_again(tmp_path: Path) -> None:
    whole = case_of("materialize", store="sqlite")
    wanted = whole.rows[0]
    case = Case(path=whole.path, params=whole.params, variants=(OURS,), rows=whole.rows, num_rows=whole.num_rows)
    said: list[str] = []
    run = Run(folder=tmp_path / "run", repeats=2, limits=LIMITS, say=said.append, has_time=lambda: True)
    assert run_case(case, Journal(tmp_path / "kept", case, "0123"), run)
    again = Journal(tmp_path / "kept", case, "0123")
    assert again.is_done(2)
    assert [each.answer for each in again.measured[OURS].repetitions] == [{"rows": 50.0}] * 2
    assert min(each.peak_mb for each in again.measured[OURS].repetitions) > 50
    assert [line.count(wanted.name) for line in said] == [1, 1, 1]
    assert not run.folder.exists()


def test_case_out_of_time_is_not_done(tmp_path: Path) -> None:
    case = case_of("materialize", store="sqlite")
    run = Run(folder=tmp_path / "run", repeats=5, limits=LIMITS, say=lambda _: None, has_time=lambda: False)
    assert not run_case(case, Journal(tmp_path / "kept", case, "0123"), run)


def measured(seconds: list[float], peak_mb: float = 100.0) -> Measured:
    return Measured(repetitions=[Repetition(seconds=[each], answer={}, peak_mb=peak_mb) for each in seconds])


def test_row_has_medians_spread_and_peaks_of_all_ways(tmp_path: Path) -> None:
    case = case_of("materialize", store="redis", dim=64)
    done = {OURS: measured([2.0, 1.0, 9.0]), STOCK: measured([20.0, 30.0, 10.0], 900.0), RAW: measured([1.0] * 3)}
    (row,) = result_rows(case, done, repeats=3, machine="invented", commit="0123")
    assert (row.ours, row.stock, row.raw, row.spread, row.peak_mb, row.n) == (2.0, 20.0, 1.0, 8.0, 100.0, 500)
    assert (row.params["stock_spread"], row.params["stock_peak_mb"]) == (20.0, 900.0)
    figures = Figures(tmp_path)
    figures.put(case, 3, [row])
    assert load(tmp_path).rows == (row,)
    assert Figures(tmp_path).has(case, 3, "0123")
    assert not Figures(tmp_path).has(case, 3, "4567")
    assert not Figures(tmp_path).has(case, 5, "0123")


def test_stopped_way_has_a_reason_and_no_figure() -> None:
    case = case_of("materialize", store="redis", dim=64)
    done = {OURS: measured([2.0]), STOCK: Measured(stopped="killed at 12 GB"), RAW: measured([1.0])}
    (row,) = result_rows(case, done, repeats=1, machine="invented", commit="0123")
    assert row.stock is None
    assert row.params["stock"] == "killed at 12 GB"
    assert "stock_peak_mb" not in row.params


def test_quantiles_are_of_all_calls_in_milliseconds() -> None:
    case = case_of("read_matrix", store="redis")
    calls = Measured(
        repetitions=[Repetition(seconds=[0.001, 0.003], answer={}), Repetition(seconds=[0.005], answer={})]
    )
    rows = result_rows(case, dict.fromkeys(case.variants, calls), repeats=2, machine="invented", commit="0123")
    medians = [(row.ours, row.unit, row.spread) for row in rows if row.params["quantile"] == "p50"]
    assert medians == [(3.0, "ms", 3.0)] * 3
    assert {(row.name, row.params.get("columns")) for row in rows} == {
        ("read_matrix", "vector"),
        ("read_matrix", "all"),
        ("get_online_features", None),
    }


def test_ways_that_disagree_are_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path, case_of("materialize", store="redis"), "0123")
    journal.add(OURS, 0, Repetition(seconds=[1.0], answer={"rows": 50.0}))
    with pytest.raises(RuntimeError, match=r"same answer \(got {'rows': 49.0} by stock"):
        journal.add(STOCK, 0, Repetition(seconds=[1.0], answer={"rows": 49.0}))


def test_cases_have_the_sizes_of_the_goals_and_rows_of_their_own() -> None:
    full = cases(1.0)
    sizes = {(case.params["store"], case.num_rows) for case in full if case.path == "materialize"}
    assert {(store, rows) for store in ("redis", "sqlite", "milvus") for rows in (100_000, 1_000_000)} < sizes
    assert {case.params["pins"] for case in full if case.path == "online"} == {1, 100, 1000}
    rows = [identity for case in full for identity in identities(case, 5)]
    assert {name for name, _ in rows} == set(NAMES)
    assert len({(name, *sorted(params.items())) for name, params in rows}) == len(rows)


def test_only_chooses_names_and_stores() -> None:
    found = chosen("materialize:sqlite,read_matrix:redis", 1.0)
    assert {(case.path, case.params["store"]) for case in found} == {("materialize", "sqlite"), ("online", "redis")}


def test_code_of_every_case_is_there() -> None:
    root = Path(__file__).parents[3]
    assert [folder for case in cases(TINY) for folder in case.code if not (root / folder).is_dir()] == []
