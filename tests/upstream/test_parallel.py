"""Data-parallel training: two processes end where one does, whatever they share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.upstream import worlds
from tests.upstream.test_walk import DAYS, embeddings
from trainers.forked import map_forked
from trainers.modules.running_norm import RunningNorm
from trainers.parallel import PeerLostError, Team, current_team, leads, team_of, uniform_of_rows
from trainers.progress import SILENT, Progress
from trainers.upstream.trainer import UpstreamTrainer
from trainers.upstream.walk import CHECKPOINT, walk

Result = TypeVar("Result")
OPTIONS = {"learned_temperature": True, "task_weighting": "uncertainty", "uniform_negatives": 7}
"""Whatever else is learned or drawn from the whole batch."""
ROOT = Path(__file__).parents[2]


def in_team(function: Callable[[Team], Result], folder: Path, size: int = 2) -> list[Result]:
    """What a function returns in each process of a team."""
    folder.mkdir(exist_ok=True)

    def member(rank: int, progress: Progress) -> Result:
        del progress
        with team_of(rank, size, f"file://{folder}/meeting") as team:
            return function(team)

    return map_forked(member, range(size), name="team", workers=size, progress=SILENT)


def walked(out: Path) -> list[dict[str, object]]:
    """Walk over four days into a folder, after two chunks of long histories."""
    history = (worlds.rows(40, seed=8), worlds.rows(21, seed=9))
    data = worlds.data(worlds.rows(sum(DAYS)), worlds.known_at(*DAYS), history)
    return walk(worlds.trainer(**OPTIONS), data, worlds.plan(out, len(DAYS)), SILENT)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """Folder and curve of a walk in one process."""
    out = tmp_path_factory.mktemp("alone")
    return out, walked(out)


def assert_same(out: Path, expected: Path) -> None:
    """Two walks left the same weights, moments, counts and vectors, to a rounding."""
    ours, theirs = load_file(out / CHECKPOINT), load_file(expected / CHECKPOINT)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        # Softmax does not see a bias of the keys: its gradient is the noise of rounding, which Adam makes steps of.
        seen = slice(len(value) // 2, None) if name.endswith("key_value.bias") else ...
        differs = f"{name} must be equal: "
        torch.testing.assert_close(ours[name][seen], value[seen], rtol=1e-4, atol=1e-5, msg=differs.__add__)
    found = embeddings(out)
    assert found.keys() == embeddings(expected).keys()
    for file, table in embeddings(expected).items():
        ours_EN = np.stack(found[file]["embedding"].to_numpy())
        np.testing.assert_allclose(ours_EN, np.stack(table["embedding"].to_numpy()), atol=1e-4)


def test_two_processes_train_what_one_trains(alone: tuple[Path, list[dict[str, object]]], tmp_path: Path) -> None:
    curves = in_team(lambda _: walked(tmp_path / "out"), tmp_path / "team")
    assert_same(tmp_path / "out", alone[0])
    assert curves[0] == curves[1]
    assert [point["roc_auc"] for point in curves[0]] == pytest.approx(
        [point["roc_auc"] for point in alone[1]], abs=0.01
    )


def test_killed_worker_ends_torchrun_and_a_resumed_team_ends_where_one_process_does(
    alone: tuple[Path, list[dict[str, object]]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__)), str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr
    stopped = embeddings(out)
    assert {file.split("=")[1] for file in stopped} == {"2024-01-02.parquet", "2024-01-03.parquet"}
    in_team(lambda _: walked(out), tmp_path / "team")
    assert_same(out, alone[0])


def test_process_that_ends_early_is_named_as_what_stopped_the_others(tmp_path: Path) -> None:
    def leave_or_wait(team: Team) -> str:
        if team.leads:
            with pytest.raises(PeerLostError) as lost:
                team.gathered(torch.ones(1, 1), 2)
            return str(lost.value)
        return "gone"

    first, second = in_team(leave_or_wait, tmp_path / "team")
    assert second == "gone"
    assert first.startswith("every process of a data-parallel training must go on to its end (lost one: ")
    assert first.endswith("the same command goes on from the last checkpoint")


def test_gathered_rows_pass_gradients_to_their_own_process(tmp_path: Path) -> None:
    def gradients(team: Team) -> tuple[list[float], list[float]]:
        weight = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(weight.weight, 3.0)
        rows = torch.tensor([[1.0], [2.0], [4.0]])[team.share(3)]
        whole = team.gathered(weight(rows), 3)
        whole.square().sum().backward()
        team.average_gradients(weight)
        assert weight.weight.grad is not None
        return whole.flatten().tolist(), weight.weight.grad.flatten().tolist()

    # The gradient of the sum of (3x)^2 by the weight is 2 * 3 * (1 + 4 + 16).
    assert in_team(gradients, tmp_path / "team") == [([3.0, 6.0, 12.0], [126.0])] * 2


def test_row_wise_gradients_are_put_together(tmp_path: Path) -> None:
    def gradient(team: Team) -> list[list[float]]:
        table = torch.nn.Sequential(torch.nn.Embedding(4, 1, sparse=True), torch.nn.Linear(1, 1))
        torch.nn.init.constant_(table[1].weight, 1.0)
        ids = torch.tensor([1, 1, 3, 1, 0])[team.share(5)]
        team.gathered(table(ids), 5).sum().backward()
        team.average_gradients(table)
        grad = table[0].weight.grad
        assert grad is not None
        return grad.to_dense().tolist()

    assert in_team(gradient, tmp_path / "team") == [[[1.0], [3.0], [0.0], [1.0]]] * 2


def test_running_moments_and_draws_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    values = torch.tensor([[1.0], [5.0], [2.0], [9.0], [3.0]])
    missing = torch.tensor([[0.0], [0.0], [1.0], [0.0], [0.0]])
    whole = RunningNorm(1)
    whole(values, missing)
    torch.manual_seed(5)
    draws = torch.rand(5).tolist()

    def shares(team: Team) -> tuple[float, float, list[float]]:
        torch.manual_seed(5)
        norm = RunningNorm(1)
        with team.computing(5) as own:
            norm(values[own], missing[own])
            drawn = uniform_of_rows(values[own, 0]).tolist()
        return float(norm.mean), float(norm.count), drawn

    first, second = in_team(shares, tmp_path / "team")
    assert first[:2] == second[:2] == (float(whole.mean), 4.0)
    assert first[2] + second[2] == draws


def test_batch_with_fewer_rows_than_processes_leaves_some_without(tmp_path: Path) -> None:
    def step(team: Team) -> tuple[int, float]:
        trainer, data = worlds.trainer(), worlds.rows(4)
        with SILENT.stage("fit") as stage:
            loss = trainer.fit(data, np.array([2, 3]), lr=0.01, rng=np.random.default_rng(0), stage=stage)
        share = team.share(2)
        return share.stop - share.start, loss

    trainer = worlds.trainer()
    with SILENT.stage("fit") as stage:
        alone = trainer.fit(worlds.rows(4), np.array([2, 3]), lr=0.01, rng=np.random.default_rng(0), stage=stage)
    found = in_team(step, tmp_path / "team", size=3)
    assert sorted(rows for rows, _ in found) == [0, 1, 1]
    assert [loss for _, loss in found] == pytest.approx([alone] * 3, rel=1e-5)


def test_process_outside_a_team_leads() -> None:
    assert current_team() is None
    assert leads()


def die_in_third_day() -> None:
    """Member of a team that torchrun started; the second is killed in its third day."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with team_of(rank, size):
        fit = UpstreamTrainer.fit

        def killed(self: UpstreamTrainer, *args: object, subject: str, **options: object) -> float:
            if rank == 1 and subject.endswith("2024-01-03"):
                os.kill(os.getpid(), signal.SIGKILL)
            return fit(self, *args, subject=subject, **options)  # type: ignore[arg-type]

        UpstreamTrainer.fit = killed  # type: ignore[method-assign]
        walked(Path(sys.argv[1]))


if __name__ == "__main__":
    die_in_third_day()
