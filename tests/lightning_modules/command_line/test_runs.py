"""The command line as it is typed, run in this process with small stages in the place of the real ones."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flowsmith.exports import DamagedExportError, check_export
from lightning_modules.command_line import config_files
from lightning_modules.command_line.config_files import ROOT
from tests.lightning_modules.command_line.line import Start, expected_weight, steps, weight


def test_a_run_leaves_everything_in_its_folder(
    start: Start, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert start("--config", "line.yaml") == 0
    assert not [warning for warning in recwarn if "LeafSpec" in str(warning.message)]
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)
    files = {
        path.relative_to("runs/line").as_posix() for path in Path("runs/line").rglob("*") if path.is_file()
    }
    assert files >= {
        *("run.json", "finished.json", "metrics.jsonl", "starts/000.yaml", "starts/000.json"),
        *("checkpoints/last.ckpt", "export/weight.json", "export/export.json"),
    }
    assert any(name.startswith("events.out.tfevents") for name in files)
    losses = [
        row
        for row in map(json.loads, Path("runs/line/metrics.jsonl").read_text().splitlines())
        if "loss" in row
    ]
    assert [row["step"] for row in losses] == list(range(12))
    assert losses[0]["loss"] == pytest.approx(4 * (0.1**2 + 0.2**2) / 2, rel=1e-5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[line] fit: ExportingModule begins; 1 process, writes to runs/line/"
    assert lines[-1].startswith("[line] done: loss ")
    assert "export in runs/line/export/" in lines[-1]


def test_the_saved_config_starts_the_same_run_again(start: Start) -> None:
    assert start("--config", "line.yaml", "--model.lr", "0.05") == 0
    assert start("--config", "runs/line/starts/000.yaml", "--run_name", "again") == 0
    assert weight("again") == weight("line") == pytest.approx(expected_weight(lr=0.05), rel=1e-5)


def test_a_finished_run_says_so_and_a_fresh_one_replaces_it(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--config", "line.yaml") == 0
    assert start("--config", "line.yaml") == 0
    assert "[line] is finished:" in capsys.readouterr().out
    assert len(steps()) == 12
    assert start("--config", "line.yaml", "--fresh", "--model.lr", "0.05") == 0
    assert len(list(Path("runs/line").glob("events.out.tfevents*"))) == 1
    assert steps() == [*range(12), *range(12)]
    assert weight() == pytest.approx(expected_weight(lr=0.05), rel=1e-5)
    # An export that was deleted comes back from the last checkpoint.
    for file in Path("runs/line/export").iterdir():
        file.unlink()
    assert start("--config", "line.yaml", "--model.lr", "0.05") == 0
    assert len(steps()) == 24
    assert weight() == pytest.approx(expected_weight(lr=0.05), rel=1e-5)


def test_a_changed_setting_is_refused_but_not_the_number_of_log_lines(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--config", "line.yaml") == 0
    before = sorted(Path("runs").rglob("*"))
    assert start("--config", "line.yaml", "--model.lr", "0.2", "--trainer.log_every_n_steps", "5") == 1
    error = capsys.readouterr().err
    assert "model.lr: 0.1 -> 0.2" in error
    assert "log_every_n_steps" not in error
    assert "--run_name line-2" in error
    assert sorted(Path("runs").rglob("*")) == before
    assert start("--config", "line.yaml", "--model.lr", "0.2", "--run_name", "line-2") == 0


def test_a_constructors_refusal_is_one_line_and_leaves_no_run(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--config", "line.yaml", "--model.lr", "-1") == 1
    assert capsys.readouterr().err == "error: lr=-1.0: goes nowhere or uphill; use a number above 0\n"
    assert not Path("runs").exists()
    assert start("--config", "line.yaml") == 0
    # Nor does it take away what is there, even where it was to be replaced.
    assert start("--config", "line.yaml", "--fresh", "--model.lr", "-1") == 1
    assert weight() == pytest.approx(expected_weight(), rel=1e-5)


@pytest.mark.parametrize("mode", ["fit", "predict", "validate"])
def test_bad_input_claims_no_folder(start: Start, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    assert start("--config", "line.yaml", "--data.torn", "true", mode=mode) == 1
    assert capsys.readouterr().err == "error: rows.parquet: torn\n"
    assert not Path("runs").exists()


def test_bad_input_replaces_no_run(start: Start) -> None:
    assert start("--config", "line.yaml") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert start("--config", "line.yaml", "--fresh", "--data.torn", "true") == 1
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before
    assert start("--config", "line.yaml", "--fresh", "--model.lr", "0.05") == 0
    assert weight() == pytest.approx(expected_weight(lr=0.05), rel=1e-5)


def test_a_validation_claims_no_folder(start: Start) -> None:
    assert start("--config", "line.yaml", mode="validate") == 0
    assert steps("validation") == [0, 1, 2]
    assert Path("runs/line/starts/000.json").is_file()
    assert not Path("runs/line/run.json").exists()
    assert start("--config", "line.yaml", mode="validate") == 0
    assert len(list(Path("runs/line/starts").glob("*.json"))) == 2
    assert start("--config", "line.yaml", "--fresh", mode="validate") == 0
    assert [path.name for path in Path("runs/line/starts").glob("*.json")] == ["000.json"]


def test_predicting_with_a_run_leaves_the_stamp_of_its_export(start: Start) -> None:
    assert start("--config", "line.yaml", "--model.lr", "0.05") == 0
    stamp = Path("runs/line/export/export.json")
    before = stamp.read_text()
    made_by = json.loads(before)["made_by"]
    assert (made_by["run"], made_by["command"]) == (
        "line",
        "python train.py --config line.yaml --model.lr 0.05",
    )
    Path("runs/line/export/weight.json").write_text('{"weight": 7}')
    assert start("--config", "line.yaml", mode="predict") == 0
    assert steps("predict") == [*range(6)]
    assert stamp.read_text() == before
    with pytest.raises(DamagedExportError):
        check_export("runs/line/export", "line.yaml")


def test_a_trial_run_leaves_nothing(start: Start) -> None:
    assert start("--config", "line.yaml", "--trainer.fast_dev_run", "true") == 0
    assert steps() == [0]
    assert not Path("runs").exists()


def test_a_bare_config_name_is_looked_up_here_then_in_configs(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path("shipped")
    (shipped / "debug").mkdir(parents=True)
    monkeypatch.setattr(config_files, "CONFIGS", shipped)
    (shipped / "line.yaml").write_text("model: {}\n")
    (shipped / "other.yaml").write_text("model: {}\n")
    (shipped / "debug" / "short.yaml").write_text("trainer: {max_steps: 1}\n")
    words = ["--config", "line.yaml", "-c", "debug/short.yaml", "--config=other.yaml", "--model.lr", "1"]
    found, paths = config_files.find_configs(words)
    assert paths == [Path("line.yaml"), shipped / "debug/short.yaml", shipped / "other.yaml"]
    assert found == [
        *(
            "--config",
            "line.yaml",
            "-c",
            "shipped/debug/short.yaml",
            "--config=shipped/other.yaml",
            "--model.lr",
            "1",
        )
    ]


def test_settings_follow_each_other_after_all_are_merged(start: Start) -> None:
    Path("tie.yaml").write_text("model: {init_args: {lr: '${data.init_args.batch_size}'}}\n")
    assert (
        start(
            "--config", "line.yaml", "-c", "tie.yaml", "--data.batch_size", "3", "--trainer.max_epochs", "0"
        )
        == 0
    )
    written = yaml.safe_load(Path("runs/line/starts/000.yaml").read_text())
    assert written["model"]["init_args"]["lr"] == 3


@pytest.mark.slow
def test_help_takes_at_most_15_seconds() -> None:
    # Processor time: that of the clock depends on what else the machine does.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "--run_name" in shown.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 15
