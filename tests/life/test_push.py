"""Pushes into a trained run: exported towers answer as the nightly ones, files are pushed once, the command speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_repo.contract import ENTITIES, embedding_view
from feature_repo.layout import open_store
from feature_repo.push.errors import PushError
from feature_repo.push.pusher import Pusher
from feature_repo.push.towers import load_manifest, newest_towers, towers_folder
from feature_repo.push.writer import RowWriter
from feature_repo.stores.packed.reader import PackedReader
from tests.life.shop import Shop
from trainers.cli import app
from trainers.life import push_rows
from trainers.life.day_check import alignment_file, published_frame
from trainers.life.home import Home
from trainers.life.push import JOURNALS, follow_refresh, prepare, push_file, pusher_of
from trainers.life.push_rows import RowFile, row_file
from trainers.progress import SILENT
from trainers.upstream.aggregate import normalised
from trainers.upstream.alignment_map import AlignmentMap

runner = CliRunner()


@pytest.fixture(scope="session")
def pushable(copied: Callable[[Path], tuple[Home, Shop]], tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A run with towers, its newest day aligned by a turn; tests push entities of their own."""
    home, _ = copied(tmp_path_factory.mktemp("pushable"))
    _turn(home).save(alignment_file(home.folder("ctr_v1"), home.newest_day("ctr_v1").cutoff))
    assert len(prepare(home, ["ctr_v1"], SILENT)) == 1
    return home


def _turn(home: Home) -> AlignmentMap:
    """Some orthogonal map of the version's space."""
    dim = home.catalogue.version("ctr_v1").dim
    matrix, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(dim, dim)))
    return AlignmentMap(kind="procrustes", user=matrix, pin=matrix, rank=dim)


def rows_file(home: Home, path: Path, text: str, entity: str = "user") -> RowFile:
    path.write_text(text)
    return row_file(path, home.manifest(), entity)


def num_rows(home: Home, view: str, keys: range) -> int:
    tables = [pq.ParquetFile(file).read(["user_id"]) for file in (home.offline / view).glob("appended-*.parquet")]
    return sum(key in keys for table in tables for key in table["user_id"].to_pylist())


@pytest.mark.parametrize("entity", ENTITIES)
def test_exported_tower_answers_what_the_night_computed(pushable: Home, entity: str) -> None:
    record = pushable.catalogue.version("ctr_v1")
    cutoff = pushable.newest_day("ctr_v1").cutoff
    keys, vectors = published_frame(pushable, record, cutoff)[entity]
    assert load_manifest(newest_towers(pushable.run, "ctr_v1", cutoff)).alignment == "procrustes"
    answer = _without_past(pusher_of(pushable), entity, keys[:50].tolist())
    np.testing.assert_allclose(answer, normalised(vectors[:50]), atol=1e-5)


def _without_past(pusher: Pusher, entity: str, keys: list[int]) -> Any:
    """What a push of the entities would write if none of them had a past."""
    with pytest.MonkeyPatch.context() as patch:
        rows: dict[str, pa.Table] = {}
        patch.setattr("feature_repo.push.pusher.averaged", lambda vectors, _past, _weight: (vectors, 0))
        patch.setattr(RowWriter, "write", lambda _self, tables, _moment: rows.update(tables) or {})
        pusher.push(entity, keys, keys=["ctr_v1"])
        return np.stack(rows[embedding_view(entity, "ctr", 1)]["embedding"].to_pylist())


def test_pushed_pin_has_a_vector_of_unit_length_at_once(pushable: Home, tmp_path: Path) -> None:
    text = '{"pin_id": 70001, "category": "food", "quality": 0.5}\n'
    found = push_file(pushable, rows_file(pushable, tmp_path / "pins.jsonl", text, "pin"), ["ctr_v1"], SILENT)
    vectors, _, statuses = PackedReader(open_store(pushable.repo_dir)).read_matrix("pin_embedding_ctr_v1", [70001])
    assert statuses.tolist() == ["present"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert (found["rows"], found["attributes"]) == (1, 1)


def test_file_is_pushed_in_chunks(pushable: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_rows, "CHUNK_ROWS", 3)
    keys = range(71000, 71010)
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": list(keys), "tenure_days": [float(key) for key in keys]}), path)
    found = push_file(pushable, row_file(path, pushable.manifest(), "user"), ["ctr_v1"], SILENT)
    (version,) = found["versions"]
    assert (found["rows"], found["attributes"], version["continued"], version["newer_kept"]) == (10, 10, 0, 0)
    assert num_rows(pushable, "user_embedding_ctr_v1", keys) == 10
    assert not list((pushable.run / JOURNALS).iterdir())


@pytest.mark.parametrize("written", [False, True])
def test_file_push_that_is_killed_is_whole_and_once_after_a_repetition(
    pushable: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    monkeypatch.setattr(push_rows, "CHUNK_ROWS", 2)
    keys = range(72000 + 100 * written, 72005 + 100 * written)
    text = "user_id,tenure_days\n" + "".join(f"{key},7\n" for key in keys)
    rows = rows_file(pushable, tmp_path / "users.csv", text)
    calls = {"count": 0}

    class Killed(Pusher):
        def _write(self, *args: Any) -> dict[str, int | None]:
            calls["count"] += 1
            if calls["count"] == 2 and not written:
                raise KeyboardInterrupt
            done = super()._write(*args)
            if calls["count"] == 2:
                raise KeyboardInterrupt
            return done

    with monkeypatch.context() as patch:
        patch.setattr("trainers.life.push.Pusher", Killed)
        with pytest.raises(KeyboardInterrupt):
            push_file(pushable, rows, ["ctr_v1"], SILENT)
    assert num_rows(pushable, "user_embedding_ctr_v1", keys) == 2 + 2 * written
    push_file(pushable, rows, ["ctr_v1"], SILENT)
    assert num_rows(pushable, "user_embedding_ctr_v1", keys) == 5
    assert num_rows(pushable, "user_attributes", keys) == 5


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("u.csv", "id\n7\n", r"must have the column user_id \(got id\); add it"),
        ("u.csv", "user_id,colour\n7,red\n", r"columns of .* must be among user_id, segment"),
        ("u.csv", "user_id,tenure_days\n7,many\n", r"row 1: tenure_days must be of its type \(got 'many'"),
        ("u.csv", "user_id,tenure_days\n7,nan\n", r"row 1: tenure_days of user_id 7 must be a finite number \(got nan"),
        ("u.csv", "user_id,liked_topics\n7,1;2\n", "row 1: liked_topics must be of its type"),
        ("u.csv", "user_id\n7\n7\n", "each user must come once"),
        ("u.csv", "user_id,segment\n7\n", "row 1: must have as many cells as the header"),
        ("u.csv", "user_id\n", "must hold a row"),
        ("u.csv", "", "must have the column user_id"),
        ("u.jsonl", "{\n", "line 1: must be JSON"),
        ("u.jsonl", "[7]\n", "line 1: must be a JSON object"),
        ("u.jsonl", '{"user_id": 7}\n{"pin_id": 7}\n', r"row 2: must have user_id \(got pin_id\)"),
        ("u.jsonl", '{"user_id": "7"}\n', r"row 1: user_id must be an integer of 0 or more \(got '7'\)"),
        ("u.jsonl", '{"user_id": 7, "colour": 1}\n', r"row 1: attributes of user_id 7 must be declared ones"),
        ("u.parquet", "no parquet", "must be a parquet file"),
        ("u.txt", "7", "--file must end in .parquet, .csv, .jsonl"),
    ],
)
def test_wrong_file_is_refused_before_anything_is_written(
    first_home: Home, tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(PushError, match=said):
        rows_file(first_home, tmp_path / name, text).check()


def test_command_pushes_lines_of_standard_input(pushable: Home) -> None:
    options = ["push", "--run", str(pushable.run), "--entity", "user", "--file", "-", "--version", "ctr_v1", "--json"]
    done = runner.invoke(app, [*options, "-q"], input='{"user_id": 73000, "segment": "never seen"}\n')
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["rows"], found["entity"], found["dry_run"]) == (1, "user", False)
    assert found["versions"][0]["unseen"] == {"segment": 1}
    tried = runner.invoke(app, [*options, "-q", "--dry-run"], input='{"user_id": 73001, "segment": "new"}\n')
    assert json.loads(tried.stdout)["dry_run"] is True
    assert num_rows(pushable, "user_embedding_ctr_v1", range(73000, 73002)) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--entity", "house", "--file", "-"], "--entity must be one of user, pin (got 'house')"),
        (["--entity", "user"], "--file must name the rows to push"),
        (["--entity", "user", "--file", "absent.csv"], "--file must be a file (got absent.csv)"),
        (["--entity", "user", "--file", "-", "--version", "ctr_v9"], "ctr_v9"),
        (["--entity", "user", "--file", "-", "--event-timestamp", "soon"], "--event-timestamp must be a date"),
    ],
)
def test_command_says_what_is_wrong(pushable: Home, options: list[str], said: str) -> None:
    done = runner.invoke(app, ["push", "--run", str(pushable.run), "-q", *options], input='{"user_id": 3}\n')
    assert done.exit_code == 2
    assert said in done.output


def test_towers_follow_a_refresh_of_versions_that_are_pushed_to(pushable: Home) -> None:
    assert prepare(pushable, ["ctr_v1"], SILENT) == []
    assert follow_refresh(pushable, SILENT) == []
    assert not towers_folder(pushable.run, "cvr_v1", pushable.newest_day("cvr_v1").cutoff).exists()
    until = datetime.max.replace(tzinfo=UTC)
    assert newest_towers(pushable.run, "ctr_v1", until).name == f"date={pushable.newest_day('ctr_v1').cutoff:%Y-%m-%d}"
