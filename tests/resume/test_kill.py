"""kill -9 at any moment, then the same command again: bit for bit the run that nobody disturbed."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lightning_modules.command_line.config_files import ROOT
from tests.moments import draw
from tests.policy.world import small_policy
from tests.processes import ended, group, train
from tests.resume.world import differences, outcome, write_run

WORDS = ("--config", "grpo.yaml")
TWO = (*WORDS, "--trainer.devices", "2", "--trainer.strategy", "ddp")


class Whole(NamedTuple):
    """A run that nobody disturbed: where it is, what there was to kill it at, what it came to."""

    folder: Path
    counts: dict[str, int]
    outcome: dict[str, Any]


def told(folder: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = write_run(tmp_path_factory.mktemp("one"))
    assert ended(train(folder, *WORDS, "--run_name", "whole", counts=folder / "counts")) == 0, told(folder)
    return Whole(folder, json.loads((folder / "counts").read_text()), outcome(folder, "whole"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The same on two processes."""
    folder = write_run(tmp_path_factory.mktemp("two"))
    ranks = [
        train(folder, *TWO, "--run_name", "whole", environment=each, counts=folder / f"counts.{rank}")
        for rank, each in enumerate(group(2))
    ]
    assert [ended(rank) for rank in ranks] == [0, 0], told(folder)
    return Whole(folder, json.loads((folder / "counts.1").read_text()), outcome(folder, "whole"))


def check_whole(whole: Whole, name: str) -> None:
    found = differences(outcome(whole.folder, name), whole.outcome)
    # A cycle's line is written after its checkpoint: a kill between the two costs the line, and nothing else.
    assert [each for each in found if not re.fullmatch(r"\.logged\.\d", each)] == []
    assert len(found) <= 1
    run = whole.folder / "runs" / name
    assert (run / "finished.json").is_file()
    assert [path.name for path in run.rglob("*.tmp")] == []


def test_the_whole_run_is_there_to_be_compared(one: Whole) -> None:
    checkpoint = one.outcome["checkpoint"]
    assert set(checkpoint) >= {
        "state_dict",
        "optimizer_states",
        "lr_schedulers",
        "loops",
        "cycle",
        "cycle_state",
    }
    assert any(name.startswith("average.") for name in checkpoint["state_dict"])
    assert checkpoint["cycle"] == 4
    assert checkpoint["cycle_state"]["replay"]["groups"]
    assert len({row["beta"] for row in one.outcome["logged"].values()}) == 4
    assert len({row["entropy_bonus"] for row in one.outcome["logged"].values()}) == 4
    assert sorted(one.outcome["logged"]) == [0, 1, 2, 3]
    assert min(one.counts.values()) > 10
    changed = json.loads(json.dumps(one.outcome["logged"])), one.outcome["logged"]
    changed[0]["3"]["reward"] += 1e-12
    assert len(differences({int(k): v for k, v in changed[0].items()}, changed[1])) == 1


@pytest.mark.parametrize("phase", ["update", "checkpoint"])
def test_a_killed_run_goes_on_bit_for_bit(one: Whole, phase: str) -> None:
    (moment,) = draw(one.counts, [phase], seed=1)
    words = (*WORDS, "--run_name", f"fast-{moment}")
    assert ended(train(one.folder, *words, moment=moment)) == -signal.SIGKILL
    assert not (one.folder / "runs" / words[-1] / "finished.json").exists()
    assert ended(train(one.folder, *words)) == 0, told(one.folder)
    check_whole(one, words[-1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("phase", ["rollout", "reward", "update", "checkpoint", "between", "export"])
def test_at_any_moment_by_the_command_itself(one: Whole, phase: str, seed: int) -> None:
    (moment,) = draw(one.counts, [phase], seed=2 + seed)
    words = (*WORDS, "--run_name", f"slow-{moment}")
    assert ended(train(one.folder, *words, moment=moment)) == -signal.SIGKILL
    command = [sys.executable, str(ROOT / "train.py"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(seed + 1)}
    done = subprocess.run(
        command, cwd=one.folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    check_whole(one, words[-1])


def test_a_whole_checkpoint_of_another_model_is_one_clear_error(one: Whole, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    small_policy(spread=2.0, hidden=16).export(folder / "vocabulary")
    other = one.folder / "runs" / "whole" / "checkpoints" / "last.ckpt"
    assert ended(train(folder, *WORDS, "--ckpt_path", str(other))) == 1
    errors = [line for line in told(folder).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "it is of another model" in errors[0]
    assert "Traceback" not in told(folder)


def killed(two: Whole, name: str, rank: int, phase: str, seed: int) -> None:
    (moment,) = draw(two.counts, [phase], seed)
    words = (*TWO, "--run_name", name)
    ranks = [
        train(two.folder, *words, environment=each, moment=moment if number == rank else None)
        for number, each in enumerate(group(2))
    ]
    assert ended(ranks[rank]) == -signal.SIGKILL
    # In a collective the other one finds its partner gone; elsewhere whoever started both ends it, here by hand.
    other = ranks[1 - rank]
    other.join(20)
    other.kill()
    assert ended(other) != 0, told(two.folder)
    ranks = [train(two.folder, *words, environment=each) for each in group(2)]
    assert [ended(each) for each in ranks] == [0, 0], told(two.folder)
    check_whole(two, name)


def test_two_processes_of_which_one_is_killed(two: Whole) -> None:
    killed(two, "fast", rank=1, phase="update", seed=3)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "phase"), [(0, "rollout"), (0, "update"), (1, "reward"), (1, "between")])
def test_two_processes_at_any_moment(two: Whole, rank: int, phase: str) -> None:
    killed(two, f"slow-{rank}-{phase}", rank, phase, seed=4)
