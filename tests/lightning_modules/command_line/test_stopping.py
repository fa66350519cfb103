"""Whatever ends a run, the same command goes on from there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from flowsmith.exports import check_export
from lightning_modules.command_line.config_files import ROOT
from tests.lightning_modules.command_line.line import Start, expected_weight, steps, told, weight


@pytest.mark.parametrize("settings", [{}, {"save_last": True}])
def test_a_checkpoint_callback_of_the_config_keeps_the_run_resumable(
    start: Start, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """What a run goes on from is the latest that anybody saved, be it at a stop or at an epoch's end."""
    monkeypatch.setattr("callbacks.preemption._SAME_PRESS", 0.1)
    checkpoint = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": settings}
    Path("keep.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [checkpoint]}}))
    words = ["--config", "line.yaml", "--config", "keep.yaml"]
    assert start(*words, stop="train 3 SIGINT 0") == 130
    assert start(*words, stop="train 8 SIGINT 0 twice") == 130
    (last,) = Path("runs/line/checkpoints").glob("last*")
    assert torch.load(last, weights_only=False)["global_step"] == 6  # the end of the first epoch
    assert start(*words) == 0
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


def test_without_checkpoint_callbacks_only_a_stop_saves(start: Start) -> None:
    words = ["--config", "line.yaml", "--trainer.enable_checkpointing", "false"]
    assert start(*words, stop="train 3 SIGINT 0") == 130
    assert [path.name for path in Path("runs/line/checkpoints").iterdir()] == ["last.ckpt"]
    assert start(*words) == 0
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


def test_a_damaged_run_folder_is_told_and_can_be_replaced(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--config", "line.yaml", stop="train 3 SIGINT 0") == 130
    last, run = Path("runs/line/checkpoints/last.ckpt"), Path("runs/line/run.json")
    whole = last.read_bytes()
    for damaged in (b"", b"PK", b"not a checkpoint", whole[: len(whole) // 2]):
        last.write_bytes(damaged)
        capsys.readouterr()
        assert start("--config", "line.yaml") == 1
        error = capsys.readouterr().err
        assert error.startswith("error: runs/line/checkpoints/last.ckpt: damaged, or no checkpoint (")
        assert error.endswith("); go on from another with --ckpt_path, or start over with --fresh\n")
    for content in ("{}", "[]", "{"):
        run.write_text(content)
        assert start("--config", "line.yaml") == 1
        error = capsys.readouterr().err
        assert error.startswith("error: runs/line/run.json: cannot be read (")
        assert error.count("\n") == 1
    assert len(list(Path("runs/line/starts").glob("*.json"))) == 1
    assert start("--config", "line.yaml", "--fresh") == 0
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


@pytest.mark.parametrize(
    "stops",
    [
        {"train 3 SIGINT 0": 130},
        {"train 8 SIGUSR1 0": 138},
        {"train 5 SIGTERM 0": 143, "train 7 SIGTERM 0": 143},  # the first in the last batch of an epoch
        {"train 11 SIGTERM 0": 143},  # in the very last batch
    ],
)
@pytest.mark.parametrize("validated", [True, False])
def test_a_stopped_run_goes_on_exactly_where_it_was(
    start: Start, stops: dict[str, int], validated: bool
) -> None:
    words = ["--config", "line.yaml", "--trainer.num_sanity_val_steps", "0"]
    words += [] if validated else ["--trainer.limit_val_batches", "0"]
    for stop, code in stops.items():
        assert start(*words, stop=stop) == code
        done = int(stop.split()[1]) + 1
        assert steps() == [*range(done)]
        assert not Path("runs/line/export").exists()
        assert not Path("runs/line/finished.json").exists()
        assert not list(Path("runs/line").rglob("*.tmp"))
        saved = torch.load("runs/line/checkpoints/last.ckpt", weights_only=False)
        assert saved["global_step"] == done
    assert start(*words) == 0
    assert steps() == [*range(12)]
    epoch = [[(2 * n + 1) / 10, (2 * n + 2) / 10] for n in range(6)]
    assert told("train", "x") == [pytest.approx(x) for x in 2 * epoch]
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)
    assert steps("validation") == 2 * [0, 1, 2] * validated


def test_a_validation_in_training_is_finished_before_the_stop(start: Start) -> None:
    assert (
        start("--config", "line.yaml", "--trainer.num_sanity_val_steps", "0", stop="validation 1 SIGINT 0")
        == 130
    )
    assert (steps("validation"), steps()) == ([0, 1, 2], [*range(6)])
    assert start("--config", "line.yaml", "--trainer.num_sanity_val_steps", "0") == 0
    assert (steps("validation"), steps()) == ([0, 1, 2, 0, 1, 2], [*range(12)])
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


def test_a_sanity_check_stops_with_nothing_saved(start: Start) -> None:
    assert start("--config", "line.yaml", stop="validation 0 SIGTERM 0") == 143
    assert not Path("runs/line/checkpoints").exists()
    assert start("--config", "line.yaml") == 0
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


def test_a_second_signal_leaves_the_last_checkpoint_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callbacks.preemption._SAME_PRESS", 0.1)
    assert start("--config", "line.yaml", stop="train 8 SIGINT 0 twice") == 130
    assert steps() == [*range(8)]
    saved = torch.load("runs/line/checkpoints/last.ckpt", weights_only=False)
    assert saved["global_step"] == 6  # the end of the first epoch
    assert start("--config", "line.yaml") == 0
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


def test_predict_stops_between_batches_and_is_not_finished(start: Start) -> None:
    assert start("--config", "line.yaml", mode="predict", stop="predict 2 SIGTERM 0") == 143
    assert steps("predict") == [0, 1, 2]
    assert not Path("runs/line/finished.json").exists()
    assert start("--config", "line.yaml", mode="predict") == 0
    assert Path("runs/line/finished.json").exists()


def test_a_crash_keeps_the_last_good_checkpoint(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.stand_ins import ExportingModule

    def broken(self: Any, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("")
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(ExportingModule, "export", broken)
        with pytest.raises(RuntimeError, match="disk full"):
            start("--config", "line.yaml")
    assert sorted(path.name for path in Path("runs/line").iterdir() if "export" in path.name) == []
    assert not Path("runs/line/finished.json").exists()
    assert start("--config", "line.yaml") == 0  # trained already: only the export was missing
    assert len(steps()) == 12
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


def ddp(folder: Path, *words: str, stop: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), "--config", "line.yaml", *words]
    both = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = os.environ | {"STAND_IN_STOP": stop, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *both], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_stop_together_and_go_on(start: Start, tmp_path: Path, rank: int) -> None:
    stopped = ddp(tmp_path, stop=f"train 1 SIGUSR1 {rank}")
    assert stopped.returncode == 138, stopped.stderr
    assert steps() == steps(rank=1) == [0, 1]
    done = ddp(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[line] done:") == 1
    assert steps() == steps(rank=1) == [*range(6)]  # 3 batches for each rank and epoch
    for n in range(2):
        epoch = [[(4 * batch + n + 1) / 10, (4 * batch + n + 3) / 10] for batch in range(3)]
        assert told("train", "x", rank=n) == [pytest.approx(x) for x in 2 * epoch]
    assert weight() == pytest.approx(expected_weight(size=4), rel=1e-5)
    assert len(list(Path("runs/line/starts").glob("*.json"))) == 2
    check_export("runs/line/export", "line.yaml")
    # One process more or less is the same run, and it is finished.
    assert start("--config", "line.yaml") == 0
    assert len(steps()) == 6


@pytest.mark.slow
def test_two_processes_predict_and_stop(start: Start, tmp_path: Path) -> None:
    stopped = ddp(tmp_path, "--mode", "predict", stop="predict 1 SIGTERM 0")
    assert stopped.returncode == 143, stopped.stderr
    done = ddp(tmp_path, "--mode", "predict", "--fresh")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in Path("runs/line/starts").glob("*.json")] == ["000.json"]
