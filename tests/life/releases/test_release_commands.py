"""`headwater release …` as a person and as a script use it."""

from __future__ import annotations

import getpass
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from feast import FeatureService
from typer.testing import CliRunner

from feature_repo.layout import open_store
from feature_repo.versions import Catalogue, ReleaseRecord, Split
from tests.life.releases.files import write_parts
from tests.serving.tiny_run import SPACES
from trainers.cli import app
from trainers.commands import release_changes
from trainers.run_lock import run_lock

ME = f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a retrained pctr ranker."""
    return write_parts(tmp_path / "parts")


def release(command: str, run: Path, *arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["release", command, *map(str, arguments), "--run", str(run)])
    assert result.exit_code == code, result.output
    return result


def as_json(command: str, run: Path, *arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(release(command, run, *arguments, "--json").stdout)
    return found


def refusal(command: str, run: Path, *arguments: str | Path) -> str:
    """The one sentence with which a command refuses a caller's mistake."""
    (line,) = release(command, run, *arguments, code=2).stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_list_shows_releases_newest_first_with_state_and_versions(run: Path, catalogue: Catalogue) -> None:
    lines = release("list", run).stdout.splitlines()
    assert [[*line.split()[:2], line.split()[-1]] for line in lines] == [
        ["release", "state", "versions"],
        ["tiny-2", "candidate", "ctr_v2"],
        ["tiny-1", "live", "ctr_v1"],
    ]
    found = as_json("list", run)
    assert (found["live"], found["shadow"], found["shadow_share"]) == ("tiny-1", None, 0.0)
    assert [each["id"] for each in found["releases"]] == ["tiny-2", "tiny-1"]
    catalogue.retire_release("tiny-2", who=ME, why="a test")
    assert "tiny-2" not in release("list", run).stdout
    assert "tiny-2" in release("list", run, "--all").stdout


def test_show_tells_versions_spaces_models_and_what_happened(run: Path) -> None:
    text = release("show", run).stdout
    for part in ("tiny-1, live", "ctr_v1 in space 0123456789ab", "pctr ctr.onnx", "6 Pins, 3 wide", "a test"):
        assert part in text
    found = as_json("show", run, "tiny-2")
    assert (found["record"]["id"], found["manifest"]["format"]) == ("tiny-2", 2)
    assert [each["after"] for each in found["transitions"]] == ["candidate"]


def test_diff_of_one_release_is_against_the_live_one(run: Path) -> None:
    found = as_json("diff", run, "tiny-2")
    assert (found["before"], found["after"]) == ("tiny-1", "tiny-2")
    parts = {each["part"]: (each["before"], each["after"]) for each in found["changes"]}
    assert parts["version ctr_v1"] == ("0123456789ab", "")
    assert parts["version ctr_v2"] == ("", "ba9876543210")
    assert parts["service ranking"] == ("ranking__ctr_v1", "ranking__ctr_v2")
    assert parts["calibration pctr on *"] == ("1 x + 0", "1 x + 1")
    assert "ctr.onnx" not in parts
    assert release("diff", run, "tiny-2", "tiny-2").stdout == "tiny-2 and tiny-2 hold the same\n"
    assert "encoder query.user" in release("diff", run, "tiny-1", "tiny-2").stdout


def test_promote_and_rollback_keep_who_and_why(run: Path, catalogue: Catalogue) -> None:
    assert "tiny-2 is live (before: tiny-1)" in release("promote", run, "tiny-2", "--why", "+0.4 %").stdout
    assert catalogue.pointers().live == "tiny-2"
    assert release("promote", run, "tiny-2").stdout == "tiny-2 is live already\n"
    assert "tiny-1 is live (before: tiny-2)" in release("rollback", run).stdout
    moves = [(each.after, each.who, each.why) for each in catalogue.transitions("pointers")[-2:]]
    assert moves == [("tiny-2", ME, "+0.4 %"), ("tiny-1", ME, "rolled back from tiny-2")]
    assert "have been live before the live one" in refusal("rollback", run)


def test_dry_runs_change_nothing(run: Path, catalogue: Catalogue, folder: Path) -> None:
    before = (catalogue.pointers(), len(catalogue.transitions()), sorted((run / "releases").iterdir()))
    assert "tiny-2 would be live (now tiny-1)" in release("promote", run, "tiny-2", "--dry-run").stdout
    assert "would score 50%" in release("shadow", run, "tiny-2", "--share", "0.5", "--dry-run").stdout
    assert "release tiny-2 would be retired" in release("retire", run, "tiny-2", "--dry-run").stdout
    assert "would be created, on ctr_v1 (0123456789ab)" in release("create", run, folder, "--dry-run").stdout
    assert "nothing is retired" in release("prune", run, "--dry-run").stdout
    assert (catalogue.pointers(), len(catalogue.transitions()), sorted((run / "releases").iterdir())) == before


def test_create_makes_a_candidate(run: Path, catalogue: Catalogue, folder: Path) -> None:
    found = as_json("create", run, folder, "--why", "retrained")
    record = catalogue.release(found["release"])
    assert (found["parent"], record.made_by, record.state) == ("tiny-1", ME, "candidate")
    assert f"{record.id} is a candidate" in release("create", run, folder).stdout


def test_shadow_names_a_release_and_ends_without_one(run: Path, catalogue: Catalogue) -> None:
    assert release("shadow", run, "tiny-2", "--share", "0.05").stdout == "tiny-2 scores 5% of the requests\n"
    assert (catalogue.pointers().shadow, catalogue.pointers().shadow_share) == ("tiny-2", 0.05)
    assert "candidate, shadow 5%" in release("list", run).stdout
    assert "neither live nor the shadow nor in a split (it is shadow)" in refusal("retire", run, "tiny-2")
    release("shadow", run)
    assert catalogue.pointers().shadow is None
    assert "--share must be above 0 and at most 1 (got 2.0)" in refusal("shadow", run, "tiny-2", "--share", "2")


def test_split_names_a_release_and_ends_without_one(run: Path, catalogue: Catalogue) -> None:
    told = release("split", run, "tiny-2", "--share", "0.1", "--holdout", "0.2", "--name", "trial")
    assert told.stdout == "tiny-2 answers 10.0% of the users in split trial; 20.0% of them are held out\n"
    running = Split(name="trial", release="tiny-2", share=0.1, holdout=0.2, salt="trial")
    assert catalogue.pointers().split == running
    assert "candidate, split trial 10%" in release("list", run).stdout
    assert "neither live nor the shadow nor in a split (it is split)" in refusal("retire", run, "tiny-2")
    assert json.loads(release("list", run, "--json").stdout)["split"]["name"] == "trial"
    assert "would be answered" in release("split", run, "--dry-run").stdout
    assert catalogue.pointers().split == running
    release("split", run)
    assert catalogue.pointers().split is None
    assert "share must be above 0" in refusal("split", run, "tiny-2", "--share", "2")


def test_retire_names_every_consumer(run: Path, catalogue: Catalogue) -> None:
    store = open_store(run / "feature_repo")
    views = [store.get_feature_view(f"{entity}_embedding_ctr_v1") for entity in ("user", "pin")]
    store.apply([FeatureService(name="ads_ranker", features=views)])
    told = refusal("retire", run, "ctr_v1")
    assert "(got 2: release tiny-1 (live); service ads_ranker (reads ctr_v1))" in told
    assert "neither live nor the shadow nor in a split (it is live)" in refusal("retire", run, "tiny-1")
    assert catalogue.version("ctr_v1").state == "live"


def test_retire_and_prune_delete_a_version_that_nothing_reads(run: Path, catalogue: Catalogue) -> None:
    release("promote", run, "tiny-2")
    release("retire", run, "tiny-1", "--why", "old")
    assert release("retire", run, "ctr_v1").stdout.startswith("version ctr_v1 is retired; `headwater release prune`")
    told = refusal("retire", run, "ctr_v1", "--why", "another reason")
    assert f"must not be retired yet (it is retired: {ME} made it so at 20" in told
    assert "because 'given up'); `headwater release prune` is next" in told
    plan = release("prune", run, "--dry-run").stdout
    assert "version ctr_v1: would delete 30 B" in plan
    assert "  view user_embedding_ctr_v1 and its online rows" in plan
    assert (run / "releases" / "tiny-1").exists()
    found = as_json("prune", run)["pruned"]
    assert [each["subject"] for each in found] == ["release tiny-1", "version ctr_v1"]
    assert found[1]["paths"][-1] == "upstream/ctr_v1"
    assert not (run / "releases" / "tiny-1").exists()
    assert "nothing is retired" in release("prune", run).stdout
    assert catalogue.version("ctr_v1").state == "pruned"
    assert "it is pruned" in (told := refusal("retire", run, "ctr_v1"))
    assert told.rstrip().endswith("nothing is left of it to give up")


def test_commands_killed_halfway_are_repeated_as_they_were(run: Path, catalogue: Catalogue) -> None:
    release("promote", run, "tiny-2")
    catalogue.retire_release("tiny-1", who=ME, why="old")
    found = as_json("retire", run, "tiny-1", "ctr_v1", "--why", "old")
    assert found["retired"] == ["release tiny-1", "version ctr_v1"]
    release("prune", run, "tiny-1", "--why", "old")
    found = as_json("prune", run, "tiny-1", "ctr_v1", "--why", "old")
    assert [each["subject"] for each in found["pruned"]] == ["version ctr_v1"]
    assert as_json("prune", run, "tiny-1", "ctr_v1", "--why", "old")["pruned"] == []
    assert "must be retired to be pruned (got pruned)" in refusal("prune", run, "tiny-1", "--why", "another reason")


def test_rollback_killed_before_it_told_goes_no_second_step_back(
    run: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for turn, name in enumerate(("tiny-2", "tiny-1", "tiny-2")):
        catalogue.promote(name, who=ME, why=f"turn {turn}")

    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(release_changes, "_say_live", kill)
        release("rollback", run, code=130)
    assert catalogue.pointers().live == "tiny-1"
    assert "tiny-1 is live (before: tiny-2)" in release("rollback", run).stdout
    assert catalogue.pointers().live == "tiny-1"
    assert list((run / "requests").iterdir()) == []
    assert "tiny-2 is live (before: tiny-1)" in release("rollback", run).stdout


def test_show_tells_of_a_release_while_the_live_ones_manifest_is_unreadable(run: Path) -> None:
    (run / "releases" / "tiny-1" / "manifest.json").write_text("{")
    assert "tiny-2, candidate" in release("show", run, "tiny-2").stdout
    assert as_json("show", run, "tiny-2")["live"] is None
    assert "breaks the serving contract" in refusal("show", run)


def test_retire_gives_up_superseded_releases_and_then_their_version(run: Path, catalogue: Catalogue) -> None:
    release("promote", run, "tiny-2")
    assert "(got 1: release tiny-1 (superseded))" in refusal("retire", run, "ctr_v1")
    assert as_json("retire", run, "ctr_v1", "tiny-1", "--dry-run")["retired"] == ["release tiny-1", "version ctr_v1"]
    assert catalogue.release("tiny-1").state == "superseded"
    release("retire", run, "ctr_v1", "tiny-1")
    assert (catalogue.release("tiny-1").state, catalogue.version("ctr_v1").state) == ("retired", "retired")


def test_retire_of_old_days_keeps_the_live_one_the_shadow_and_younger_ones(run: Path, catalogue: Catalogue) -> None:
    days = {f"day-{day}": datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)}
    for name, cutoff in days.items():
        catalogue.create_release(
            ReleaseRecord(
                id=name,
                folder=f"releases/{name}",
                manifest_sha256="0" * 64,
                versions={"ctr_v1": SPACES[1]},
                data_cutoff=cutoff,
            ),
            who="refresh",
            why="a test",
        )
        catalogue.promote(name, who="refresh", why="a test")
    catalogue.shadow("day-1", 0.5, who=ME, why="a test")
    found = as_json("retire", run, "--superseded-before", "2026-01-03")
    assert found["retired"] == ["release day-2"]
    assert "no release is superseded and that old" in release("retire", run, "--superseded-before", "2026-01-03").stdout
    assert "must be a date or a moment" in refusal("retire", run, "--superseded-before", "then")
    assert "must be given (got none of them)" in refusal("retire", run)


def test_prune_waits_for_no_other_process(run: Path) -> None:
    with run_lock(run):
        assert "worked on by one process at a time" in release("prune", run, code=1).stderr
        release("prune", run, "--dry-run")


def test_promote_refuses_a_release_that_no_server_could_load(run: Path, catalogue: Catalogue) -> None:
    (run / "releases" / "tiny-2" / "pins.faiss").unlink()
    assert "pins.faiss must exist" in refusal("promote", run, "tiny-2")
    assert catalogue.pointers().live == "tiny-1"


def test_two_operators_at_once_one_wins_and_the_other_is_told(
    run: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one promotes between this one's look and its change."""
    seen = Catalogue.pointers

    def then_another(self: Catalogue) -> Any:
        found = seen(self)
        # Servers of other tests look at catalogues of their own meanwhile.
        if repr(self) != repr(catalogue):
            return found
        monkeypatch.setattr(Catalogue, "pointers", seen)
        self.promote("tiny-2", who="other@host", why="first")
        return found

    monkeypatch.setattr(Catalogue, "pointers", then_another)
    told = refusal("promote", run, "tiny-2", "--why", "second")
    assert "other@host made it so" in told
    assert "'first'" in told


def test_promote_of_a_retired_release_says_who_retired_it_when_and_why(run: Path, catalogue: Catalogue) -> None:
    catalogue.retire_release("tiny-2", who="mia@ops", why="no better")
    told = refusal("promote", run, "tiny-2")
    assert "release tiny-2 must be candidate or superseded (got retired): mia@ops made it so at 20" in told
    assert "because 'no better'" in told
    assert catalogue.pointers().live == "tiny-1"


@pytest.mark.parametrize("command", ["promote", "shadow"])
def test_pruned_release_is_refused_with_who_pruned_it_when_and_why(
    run: Path, catalogue: Catalogue, command: str
) -> None:
    release("retire", run, "tiny-2")
    release("prune", run, "tiny-2", "--why", "the disk was full")
    for options in ((), ("--dry-run",)):
        told = refusal(command, run, "tiny-2", *options)
        assert f"release tiny-2 must be candidate or superseded (got pruned): {ME} made it so at 20" in told
        assert "because 'the disk was full'" in told
    assert catalogue.pointers().live == "tiny-1"


@pytest.mark.parametrize("command", ["list", "show", "rollback", "prune"])
def test_folder_without_a_run_is_refused(tmp_path: Path, command: str) -> None:
    assert "--run must be the directory of a run" in refusal(command, tmp_path)


def test_unknown_release_is_refused_with_the_known_ones(run: Path) -> None:
    assert "release must be one of tiny-1, tiny-2 (got 'tiny-9')" in refusal("promote", run, "tiny-9")
    told = refusal("retire", run, "ctr_v9")
    assert "release or version must be one of tiny-1, tiny-2, ctr_v1, ctr_v2 (got 'ctr_v9')" in told


def test_error_as_json_carries_the_exit_code(run: Path) -> None:
    found = json.loads(release("promote", run, "tiny-9", "--json", code=2).stdout)
    assert found["exit_code"] == 2
    assert "got 'tiny-9'" in found["error"]
