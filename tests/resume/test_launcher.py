"""When one rank dies, whoever started them ends all, and the same command goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_modules.command_line.config_files import ROOT
from tests.resume.world import differences, held, outcome, runs, wait_for, write_run

COMMAND = [sys.executable, str(ROOT / "train.py"), "--config", "grpo.yaml"]
COMMAND += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--run_name"]


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*COMMAND, name], cwd=folder, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("world"))
    whole = start(folder, "whole")
    told, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, told
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_rank_ends_all_and_the_command_goes_on(world: Path, rank: int) -> None:
    (world / "hold").touch()
    first = start(world, f"rank-{rank}")
    run = world / "runs" / f"rank-{rank}"
    wait_for(lambda: held(run, 2) or first.poll() is not None, 300)
    ranks = held(run, 2)
    assert ranks, first.communicate()[0]
    assert ranks[0] == first.pid
    os.kill(ranks[rank], signal.SIGKILL)
    # Both wait outside of any collective, which would fail by itself.
    wait_for(lambda: not any(runs(each) for each in ranks), 20)
    told, _ = first.communicate(timeout=30)
    assert first.returncode not in (0, None)
    if rank == 1:
        assert "terminated with code -9" in told
    (world / "hold").unlink()
    again = start(world, f"rank-{rank}")
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert f"goes on from runs/rank-{rank}/checkpoints/last.ckpt" in told
    assert differences(outcome(world, f"rank-{rank}"), outcome(world, "whole")) == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", [[0, 1], [0], [1]])
def test_a_mistake_that_ranks_find_in_training_is_told_once(world: Path, broken: list[int]) -> None:
    marks = [world / f"broken.{rank}" for rank in broken]
    for mark in marks:
        mark.touch()
    told, _ = (process := start(world, f"broken-{len(broken)}-{broken[0]}")).communicate(timeout=300)
    for mark in marks:
        mark.unlink()
    assert process.returncode not in (0, None)
    assert told.count("this is broken; mend it") == 1
    assert ("error on rank 1: " in told) == (broken == [1])
    assert "Traceback" not in told
