"""The journal of complete chunks survives whatever ends the process."""

from pathlib import Path

import pytest

from feature_repo.stores.engine.journal import Journal, MaterializationInProgressError, Probe, exclusive


def probe(key: str) -> Probe:
    return Probe(entity_key=key, event_timestamp=5)


def journal(path: Path, fingerprint: str = "f") -> Journal:
    return Journal(path, fingerprint)


def begun(path: Path, chunks: int) -> Journal:
    found = journal(path)
    found.begin()
    for chunk in range(chunks):
        found.complete(10 * (chunk + 1), [probe(f"{chunk:02x}")])
    return found


def test_journal_is_read_back(tmp_path: Path) -> None:
    begun(tmp_path / "j", 2)
    found = journal(tmp_path / "j")
    assert (found.rows, found.is_checked, found.probes) == (20, True, [probe("00"), probe("01")])


def test_journal_of_other_rows_counts_for_nothing(tmp_path: Path) -> None:
    begun(tmp_path / "j", 2)
    found = journal(tmp_path / "j", "other")
    assert (found.rows, found.is_checked, found.probes) == (0, False, [])


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_line_that_was_cut_short_is_dropped_and_written_over(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "j"
    begun(path, 2)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][: min(kept, len(lines[-1]) - 1)])
    found = journal(path)
    assert found.rows == 10
    found.complete(20, [probe("aa")])
    assert journal(path).probes == [probe("00"), probe("aa")]


def test_empty_journal_means_that_nothing_is_checked(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("")
    assert not journal(tmp_path / "j").is_checked


def test_removed_journal_starts_over(tmp_path: Path) -> None:
    found = begun(tmp_path / "j", 1)
    found.remove()
    assert (found.rows, found.is_checked) == (0, False)
    assert not journal(tmp_path / "j").is_checked


def test_exclusive_lets_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path / "l", "view"):
        raise KeyError
    with exclusive(tmp_path / "l", "view"), pytest.raises(MaterializationInProgressError, match="view"):
        exclusive(tmp_path / "l", "view").__enter__()


def test_folder_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "project.view.jsonl"
    message = f"{path} must be written, .*; free disk space, or name another batch_engine.journal_directory"
    with pytest.raises(OSError, match=message):
        journal(path).begin()
    with pytest.raises(OSError, match=message.replace("jsonl", "lock")), exclusive(path.with_suffix(".lock"), "view"):
        pass
