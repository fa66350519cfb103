"""Exports that a config requires: made where they are missing, refused where they are stale."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowsmith.exports import ExportError, check_export
from lightning_modules.command_line import requirements
from lightning_modules.command_line.config_files import ROOT
from tests.lightning_modules.command_line.line import LINE, Start, steps

REQUIRING = LINE | {"requires": {"runs/first/export": "first.yaml"}}
REQUIRING["model"] = {
    "class_path": "tests.stand_ins.ExportingModule",
    "init_args": {"source": "runs/first/export"},
}


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, start: Start) -> list[str]:
    """Let required configs run in this process; list them."""
    Path("first.yaml").write_text(yaml.safe_dump(LINE))
    Path("second.yaml").write_text(yaml.safe_dump(REQUIRING))
    made: list[str] = []

    def run(config: str, signals: Any) -> None:
        made.append(config)
        assert start("--config", config) == 0

    monkeypatch.setattr(requirements, "_run", run)
    return made


def test_a_missing_export_is_made_first(
    start: Start, child: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--config", "second.yaml") == 0
    assert child == ["first.yaml"]
    assert "[second] requires runs/first/export, which is missing: running --config first.yaml first" in (
        capsys.readouterr().out
    )
    stamp = json.loads(Path("runs/second/export/export.json").read_text())
    assert stamp["inputs"] == {"runs/first/export": check_export("runs/first/export", "first.yaml")}
    assert start("--config", "second.yaml") == 0
    assert child == ["first.yaml"]


def test_collected_rows_can_be_required_too(start: Start, child: list[str]) -> None:
    """A config that says ``mode: predict`` collects from either door, and its rows carry a stamp."""
    collect = LINE | {"mode": "predict"}
    collect["trainer"] = LINE["trainer"] | {"callbacks": [{"class_path": "tests.stand_ins.RowsWriter"}]}
    Path("first.yaml").write_text(yaml.safe_dump(collect))
    assert start("--config", "second.yaml") == 0
    assert child == ["first.yaml"]
    assert (steps("predict"), steps()) == ([*range(6)], [*range(12)])
    stamp = json.loads(Path("runs/second/export/export.json").read_text())
    assert stamp["inputs"] == {"runs/first/export": check_export("runs/first/export", "first.yaml")}
    Path("runs/first/export/rows.json").write_text("[1, 3]")
    assert start("--config", "second.yaml", "--fresh") == 1, (
        "rows that were edited are not what was collected"
    )


def test_an_export_made_anew_is_another_input(
    start: Start, child: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--config", "second.yaml") == 0
    assert start("--config", "first.yaml", "--fresh", "--model.lr", "0.01") == 0
    assert start("--config", "second.yaml") == 1
    assert "requires.runs/first/export" in capsys.readouterr().err
    Path("third.yaml").write_text(yaml.safe_dump(LINE | {"requires": {"runs/second/export": "second.yaml"}}))
    assert start("--config", "third.yaml") == 1
    error = capsys.readouterr().err
    assert "runs/second/export: made from runs/first/export, which has changed since" in error
    assert "python train.py --config second.yaml --fresh" in error
    assert not Path("runs/third").exists()


def test_a_config_that_exports_elsewhere_is_not_run(
    start: Start, child: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("first.yaml").write_text(yaml.safe_dump(LINE | {"run_name": "one"}))
    assert start("--config", "second.yaml") == 1
    assert "requires: runs/first/export: --config first.yaml exports to runs/one/export" in (
        capsys.readouterr().err
    )
    assert child == []


def test_the_first_of_several_processes_makes_it_before_it_starts_the_others(
    start: Start, child: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(config: str, signals: Any) -> None:
        raise ExportError(f"asked to make {config}")

    monkeypatch.setattr(requirements, "_run", refuse)
    assert start("--config", "second.yaml", "--trainer.devices", "2") == 1
    assert "asked to make first.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["node", "slurm", "launcher"])
def test_processes_that_others_started_make_no_export(
    start: Start,
    child: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    if how == "node":
        monkeypatch.setenv("NODE_RANK", "0")
    elif how == "slurm":
        monkeypatch.setenv("SLURM_NTASKS", "1")
        monkeypatch.setenv("SLURM_JOB_NAME", "train")
    elif how == "launcher":
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert start("--config", "second.yaml") == 1
    assert "run first: python train.py --config first.yaml" in capsys.readouterr().err
    assert child == []


@pytest.mark.slow
def test_a_missing_export_is_made_by_a_process_of_its_own(start: Start, tmp_path: Path) -> None:
    Path("first.yaml").write_text(yaml.safe_dump(LINE))
    Path("second.yaml").write_text(yaml.safe_dump(REQUIRING))
    environment = os.environ | {"STAND_IN_STOP": "train 3 SIGTERM 0"}
    command = [sys.executable, str(ROOT / "train.py"), "--config", "second.yaml"]
    # The signal reaches the child only; the parent says that its config failed.
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert stopped.returncode == 1
    assert "--config first.yaml failed with exit code 143" in stopped.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[first] fit: ExportingModule goes on from runs/first/checkpoints/last.ckpt" in done.stdout
    assert done.stdout.index("[first] done") < done.stdout.index("[second] done")
