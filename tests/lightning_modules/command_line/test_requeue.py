"""SLURM's warning puts the job back into the queue, whatever it finds under way; nothing else does."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.lightning_modules.command_line.line import Start, expected_weight, steps, weight


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for scontrol writes what it was asked for."""
    scontrol, file = tmp_path / "bin" / "scontrol", tmp_path / "asked"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {file}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return file


@pytest.mark.parametrize(
    ("mode", "stop"),
    [
        ("fit", "train 3 SIGUSR1 0"),
        ("fit", "train 8 SIGUSR1 0 twice"),  # given up at once; the last checkpoint is there
        ("fit", "validation 0 SIGUSR1 0"),  # in the sanity check, before any training
        ("predict", "predict 2 SIGUSR1 0"),
        ("validate", "validation 1 SIGUSR1 0"),
    ],
)
def test_warned_it_is_requeued_once(
    start: Start, asked: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, stop: str
) -> None:
    monkeypatch.setattr("callbacks.preemption._SAME_PRESS", 0.1)
    assert start("--config", "line.yaml", mode=mode, stop=stop) == 138
    assert asked.read_text() == "requeue 4711\n"
    assert start("--config", "line.yaml", mode=mode) == 0
    assert asked.read_text() == "requeue 4711\n"
    if mode == "fit":
        assert weight() == pytest.approx(expected_weight(), rel=1e-5)


@pytest.mark.parametrize("step", [3, 5, 8])  # in an epoch, at its end, in the next
def test_every_step_of_a_stopped_run_is_logged_once(start: Start, asked: Path, step: int) -> None:
    assert start("--config", "line.yaml", stop=f"train {step} SIGUSR1 0") == 138
    assert start("--config", "line.yaml") == 0
    rows = [json.loads(line) for line in Path("runs/line/metrics.jsonl").read_text().splitlines()]
    logged = [(row["start"], row["step"]) for row in rows if "loss" in row]
    assert logged == [(int(number > step), number) for number in range(12)]


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize(("mode", "step"), [("fit", "train 3"), ("predict", "predict 2")])
def test_stopped_by_hand_it_stays_stopped(
    start: Start, asked: Path, signal: str, code: int, mode: Any, step: str
) -> None:
    assert start("--config", "line.yaml", mode=mode, stop=f"{step} {signal} 0") == code
    assert not asked.exists()
    assert steps(step.split()[0]) == [*range(int(step.split()[1]) + 1)]
