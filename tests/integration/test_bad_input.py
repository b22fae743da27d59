"""What a person may get wrong: one sentence names the value and the remedy, and an earlier run stays whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from safetensors import SafetensorError

from serving.app import create_app
from serving.settings import Settings
from tests.integration.runs import headwater, refusal
from tests.integration.shop_files import Shop
from trainers.commands import exits

pytestmark = pytest.mark.slow

DAY = "impressions-2024-03-10.csv"
OTHER_YEAR = {
    "features_from": "2025-03-02T00:00:00Z",
    "train_from": "2025-03-04T00:00:00Z",
    "test_from": "2025-03-09T00:00:00Z",
    "until": "2025-03-11T00:00:00Z",
}


@pytest.fixture(scope="module")
def earlier(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, at which bad input is thrown."""
    run = tmp_path_factory.mktemp("earlier") / "run"
    shutil.copytree(finished_run, run)
    return run


def assert_whole(run: Path) -> None:
    """Every step of the run is still complete, under the options it was made with."""
    found = json.loads(headwater("run", "--run", run, "--dry-run", "--json").stdout)
    assert [step["name"] for step in found["steps"] if step["runs"]] == []
    assert json.loads((run / "run.json").read_text())["dataset"] == "synthetic"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(
            lambda shop: shop.column("impressions", user_id="user"),
            ["columns.user_id must be a column of the files (got 'user'", "map the right column"],
            id="missing column",
        ),
        pytest.param(
            lambda shop: shop.each("products.csv", price="cheap"),
            [
                "pins.price must hold DOUBLE values (got VARCHAR in every row such as 'cheap'",
                "(products.csv, row 2, column price)",
            ],
            id="wrong type",
        ),
        pytest.param(
            lambda shop: shop.table("conversions", timestamp={"format": "iso"}),
            ["must hold timestamps that say their time zone", "such as '2024-03-", "declare `format` and `timezone`"],
            id="naive timestamps",
        ),
        pytest.param(
            lambda shop: shop.each(DAY, shown_at="4102444800000"),
            [
                "(got 130 of 1,300 = 0.1000: ",
                "future event_timestamp 130 such as '2100-01-01 00:00:00+00' (",
                "raise `quarantine_share`",
            ],
            id="future timestamps",
        ),
        pytest.param(
            lambda shop: shop.each(DAY, product="-501"),
            ["(got 130 of 1,300 = 0.1000: ", "negative pin_id 130 such as '-501' (", "fix the source"],
            id="negative ids",
        ),
        pytest.param(
            lambda shop: shop.twice(DAY, "impressions-2024-03-11.csv"),
            ["(got 130 of 1,430 = 0.0909: duplicate impression_id 130 such as '1171' (", "fix the source"],
            id="duplicate impressions",
        ),
        pytest.param(
            lambda shop: shop.each("orders.csv", impression="999999"),
            [
                "bad rows in table conversions",
                "(got 243 of 243 = 1.0000: ",
                "conversion without its impression ",
                "such as '999999'",
                "fix the source",
            ],
            id="conversions without their impression",
        ),
        pytest.param(
            lambda shop: shop.rows("impressions-*.csv", lambda rows: rows[:0]),
            ["an event log must hold at least one impression (got 0); check the source files"],
            id="empty log",
        ),
        pytest.param(
            lambda shop: shop.text("impressions-*.csv", b""),
            ["tables.impressions.files must have a header line (got only empty files", "impressions-2024-03-01.csv"],
            id="empty files",
        ),
        pytest.param(
            lambda shop: shop.text(DAY, b"\xff\xfe\x00"),
            ["tables.impressions.files", "must be text in UTF-8", DAY, "save the file as UTF-8"],
            id="not text",
        ),
        pytest.param(
            lambda shop: shop.each("impressions-*.csv", opened="0"),
            ["task click (ctr_task)", "train days from 2024-03-04", "(got 0 positives and 520 negatives)", "window"],
            id="no click",
        ),
        pytest.param(
            lambda shop: shop.rows(
                "orders.csv", lambda rows: [row for row in rows if row["ordered_at"] < "2024-03-09"]
            ),
            ["task order (cvr_task)", "test days from 2024-03-09 until 2024-03-11", "(got 0 positives", "or none"],
            id="no order in the test days",
        ),
        pytest.param(
            lambda shop: shop.text(shop.yaml.name, shop.yaml.read_bytes() + b"name: other\n"),
            ["shop.yaml must be YAML", "key 'name' twice", "line 56", "correct it"],
            id="key twice",
        ),
        pytest.param(
            lambda shop: shop.declare(window=OTHER_YEAR | {"until": "2025-03-11T00:00:00"}),
            ["window.until: a moment must say its time zone (got '2025-03-11T00:00:00')", "append Z"],
            id="naive window",
        ),
        pytest.param(
            lambda shop: shop.declare(colour="red"),
            ["colour is not a known key (got 'red'); remove it or correct its spelling"],
            id="unknown key",
        ),
        pytest.param(
            lambda shop: shop.declare(window=OTHER_YEAR),
            ["2025-03-04", "(got impressions from 2024-03-01 to 2024-03-10)", "move the dataset's window"],
            id="window outside the data",
        ),
    ],
)
def test_bad_data_is_refused_and_leaves_the_earlier_run_whole(
    earlier: Path, tmp_path: Path, spoil: Callable[[Shop], Shop], words: list[str]
) -> None:
    shop = spoil(Shop(tmp_path / "shop"))
    sentence = refusal("run", "--run", earlier, "--dataset", shop.yaml, "--scale", "1")
    assert [word for word in words if word not in sentence] == [], sentence
    assert_whole(earlier)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "movielenz"], ["dataset must be one of complete_journey, kuairand", "(got 'movielenz')"]),
        (["--recipe", "huge"], ["recipe must be one of default, compared, domains,", "(got 'huge')", "--recipe"]),
        (["--path", "nowhere"], ["--path must name something that exists (got 'nowhere'); check the spelling"]),
        (["--seeds", "0"], ["num_seeds must be at least 1 (got 0); give --seeds 1 or more"]),
        (["--scale", "2"], ["scale must be above 0 and at most 1 (got 2.0)", "--scale"]),
        (["--dataset", "kuairand"], ["dataset kuairand must be given its folder (got none); pass --path"]),
    ],
)
def test_bad_option_is_refused_and_leaves_the_earlier_run_whole(
    earlier: Path, options: list[str], words: list[str]
) -> None:
    sentence = refusal("run", "--run", earlier, *options)
    assert all(word in sentence for word in words), sentence
    assert_whole(earlier)


def test_path_is_refused_where_a_yaml_names_its_files(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    sentence = refusal("ingest", "--run", tmp_path / "run", "--dataset", shop.yaml, "--path", tmp_path)
    assert f"(got --path too: {str(tmp_path)!r})" in sentence
    assert "leave --path out" in sentence


def test_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = headwater("ingest", "--dataset", "synthetic", "--run", tmp_path / "file" / "run", code=1)
    assert f"error: {tmp_path / 'file' / 'run'} must be usable (got: Not a directory); free space" in result.stderr


def test_disk_that_is_full_ends_a_step_with_a_sentence(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "event_log"))

    monkeypatch.setattr("trainers.data.prepare.ingest", full)
    result = headwater("run", "--run", earlier, "--seed", "2", code=1)
    sentence = f"error: step ingest: {tmp_path / 'event_log'} must be usable (got: No space left on device); free space"
    assert sentence in result.stderr
    assert_whole(earlier)


def test_disk_that_is_full_is_named_whichever_library_finds_it() -> None:
    error = SafetensorError("Error while serializing: I/O error: File too large (os error 27)")
    assert exits.sentence(error).startswith(
        "error: the disk must be usable (got: Error while serializing: I/O error: File"
    )
    assert exits.code(error) == exits.FAILED


def test_changed_source_file_runs_ingest_again_and_other_files_do_not(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    headwater("ingest", "--run", tmp_path / "run", "--dataset", shop.yaml)
    (tmp_path / "shop" / "notes.txt").write_text("not a source")
    first = ["run", "--run", tmp_path / "run", "--dry-run"]
    assert headwater(*first).stdout.splitlines()[0].split() == ["ingest", "up", "to", "date"]
    shop.each("orders.csv", amount="1")
    assert "would run (inputs changed: files" in headwater(*first).stdout.splitlines()[0]


def test_log_that_ends_before_labels_are_final_says_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.rows("orders.csv", lambda rows: [row for row in rows if row["ordered_at"] < "2024-03-11"])
    result = headwater("ingest", "--run", tmp_path / "run", "--dataset", shop.yaml, "--json")
    (warning,) = json.loads(result.stdout)["steps"][0]["figures"]["warnings"]
    assert warning.startswith("labels of task order are final only in a log that reaches 2024-03-13, 2 days after")
    assert "(its last event is of 2024-03-10)" in warning
    assert f"WARNING trainers.data.prepare event_log_warning text={warning!r}" in result.stderr


def test_scale_keeps_a_share_of_the_visitors(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    for name, scale in (("all", "1"), ("some", "0.5")):
        headwater("ingest", "--run", tmp_path / name, "--dataset", shop.yaml, "--scale", scale)
    everyone, some = (visitors(tmp_path / name) for name in ("all", "some"))
    assert len(everyone) == 40
    assert 10 <= len(some) <= 30
    assert some < everyone


def visitors(run: Path) -> set[int]:
    return set(pq.read_table(run / "event_log" / "users.parquet")["user_id"].to_pylist())


RUN = ("--recipe", "tiny", "--seeds", "1", "--threads", "1")


def test_own_data_with_nothing_but_clicks_on_few_pins_runs(tmp_path: Path) -> None:
    """No conversions, no attributes, one surface, twelve Pins, a day without impressions: CVR figures are absent."""
    shop = Shop(tmp_path / "shop").without("impressions-2024-03-05.csv")
    shop.rows("impressions-*.csv", lambda rows: [row for row in rows if int(row["product"]) <= 512])
    declared = shop.declared["tables"]["impressions"]
    shop.declare(
        conversions=None,
        conversion=None,
        cvr_task=None,
        tasks=[{"name": "click", "label": "click", "domain": "engagement"}],
        labels=["click"],
        user_attributes=None,
        pin_attributes=None,
        pin_title=None,
        tables={
            "impressions": declared
            | {
                "columns": {key: value for key, value in declared["columns"].items() if key != "surface"},
                "constants": {"surface": "web"},
                "labels": {"click": "opened"},
            }
        },
    )
    headwater("run", "--run", tmp_path / "run", "--dataset", shop.yaml, *RUN)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [(row["task"], row["inputs"]) for row in report["lift"]] == [
        ("ctr", arm) for arm in ("none", "user", "pin", "both", "none", "both")
    ]
    assert_served(tmp_path / "run")


def assert_served(run: Path) -> None:
    example = json.loads((run / "report.json").read_text())["example"]
    assert isinstance(example["user_id"], str)
    with TestClient(create_app(Settings(run=run))) as client:
        answer = client.post("/v1/recommend", json={"user_id": example["user_id"], "surface": "web", "k": 50}).json()
    assert (answer["k_available"], len(answer["ranked"]), answer["embeddings"]) == (12, 12, ["ctr_v1"])
    assert {pin.get("pcvr") for pin in answer["ranked"]} == {None}
