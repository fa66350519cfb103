"""When one rank dies, whoever started them ends all, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_modules.command_line.config_files import ROOT
from tests.resume.world import differences, outcome, write_run

COMMAND = [sys.executable, str(ROOT / "train.py"), "--config", "grpo.yaml"]
COMMAND += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--run_name"]


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*COMMAND, name], cwd=folder, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


def runs(process: int) -> bool:
    """Whether it is there; one that is dead and that nobody waits for is not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


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
    held = [world / "held.0", world / "held.1"]
    for file in held:
        file.unlink(missing_ok=True)
    first = start(world, f"rank-{rank}")
    end = time.monotonic() + 200
    while not all(file.exists() and file.read_text() for file in held):
        assert time.monotonic() < end
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    ranks = [int(file.read_text()) for file in held]
    assert ranks[0] == first.pid
    began = time.monotonic()
    os.kill(ranks[rank], signal.SIGKILL)
    while any(
        runs(each) for each in ranks
    ):  # both wait outside of any collective, which would fail by itself
        assert time.monotonic() - began < 15
        time.sleep(0.1)
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
