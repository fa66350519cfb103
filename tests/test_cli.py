"""The command line as it is typed, run in this process with small stages in the place of the real ones."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from flowsmith.exports import check_export
from lightning_modules.command_line import config_files, main, requirements
from lightning_modules.command_line.config_files import ROOT

LINE: dict[str, Any] = {
    "model": {"class_path": "tests.stand_ins.ExportingModule"},
    "data": {"class_path": "tests.stand_ins.LineData"},
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}
Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run a command line in an empty working folder that holds ``line.yaml``."""
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text(yaml.safe_dump(LINE))

    def run(*words: str, mode: Any = "fit", stop: str = "") -> int:
        monkeypatch.setenv("STAND_IN_STOP", stop)
        return main(mode, [str(word) for word in words])

    return run


def steps(stage: str = "train", rank: int = 0) -> list[int]:
    rows = [json.loads(line) for line in Path(f"steps.{rank}.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["stage"] == stage]


def weight(name: str = "line") -> float:
    found: float = json.loads(Path(f"runs/{name}/export/weight.json").read_text())["weight"]
    return found


def expected_weight(batches: int = 6, epochs: int = 2, lr: float = 0.1) -> float:
    """Gradient descent on mean((w x - 2 x)^2) by hand: dw = -lr * 2 (w - 2) mean(x^2)."""
    value = 0.0
    for _ in range(epochs):
        for batch in range(batches):
            x = [(1 + 2 * batch) / 10, (2 + 2 * batch) / 10]
            value -= lr * 2 * (value - 2) * sum(v * v for v in x) / 2
    return value


def test_a_run_leaves_everything_in_its_folder(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--config", "line.yaml") == 0
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


@pytest.mark.parametrize(
    ("stop", "code", "done"),
    [
        ("train 3 SIGINT 0", 130, [0, 1, 2, 3]),
        ("train 5 SIGTERM 0", 143, [*range(6)]),
        ("train 8 SIGUSR1 0", 138, [*range(9)]),
    ],
)
def test_a_stopped_run_goes_on_exactly_where_it_was(
    start: Start, stop: str, code: int, done: list[int]
) -> None:
    assert start("--config", "line.yaml", stop=stop) == code
    assert steps() == done
    assert not Path("runs/line/export").exists()
    assert not Path("runs/line/finished.json").exists()
    assert not list(Path("runs/line").rglob("*.tmp"))
    saved = torch.load("runs/line/checkpoints/last.ckpt", weights_only=False)
    assert saved["global_step"] == len(done)
    assert start("--config", "line.yaml") == 0
    assert steps() == [*range(12)]


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


@pytest.mark.parametrize(
    ("words", "content", "told"),
    [
        (["--config", "lien.yaml"], "", "--config lien.yaml: neither in the working folder nor in configs/"),
        (["--config", "bad.yaml"], "model: [1\ntrainer: 2", "bad.yaml:2:8: not YAML"),
        (["--config", "bad.yaml"], "- 1", "bad.yaml: holds no settings"),
        (["--trainer.max_epochs", "2"], "", "no stage is named"),
        (["--model.lrr", "3"], None, "model.lrr: ExportingModule has no setting 'lrr'; did you mean 'lr'?"),
        (
            ["--config", "bad.yaml"],
            "model: {init_args: {knd: plain}}",
            "has no setting 'knd'; did you mean 'kind'?",
        ),
        (["--trainer.max_stepz", "3"], None, "trainer.max_stepz: no such setting; did you mean 'max_steps'?"),
        (
            ["--config", "bad.yaml"],
            "trainer: {max_stepz: 3}",
            "trainer.max_stepz: no such setting; did you mean 'max_steps'?",
        ),
        (["--config", "bad.yaml"], "modle: {a: 1}", "modle.a: no such setting; did you mean 'model'?"),
        (["--model.lr", "abc"], None, "model.lr=abc: give a number"),
        (["--model.kind", "plane"], None, "model.kind=plane: give one of 'plain', 'fancy'"),
        (["--mode", "fitt"], None, "mode=fitt: give one of 'fit', 'validate', 'test', 'predict'"),
        (["--data", "LineDat"], None, "data: no class is called 'LineDat'; did you mean 'LineData'?"),
        (
            ["--config", "bad.yaml"],
            "trainer: {callbacks: [{class_path: ModelCheckpont}]}",
            "trainer.callbacks: no class is called 'ModelCheckpont'; did you mean 'ModelCheckpoint'?",
        ),
        (
            ["--config", "bad.yaml"],
            "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {save_lst: true}}]}",
            "trainer.callbacks.save_lst: ModelCheckpoint has no setting 'save_lst'; did you mean",
        ),
        (["--config", "bad.yaml"], "model: {init_args: {lr: '${data.nope}'}}", "model.init_args.lr"),
        (["--run_name", "a/b"], None, "--run_name 'a/b'"),
    ],
)
def test_a_mistake_is_one_clear_line(
    start: Start, capsys: pytest.CaptureFixture[str], words: list[str], content: str | None, told: str
) -> None:
    if content is not None:
        Path("bad.yaml").write_text(content)
    both = ["--config", "line.yaml"] if content is None or "bad.yaml" in words else []
    assert start(*both, *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert not Path("runs").exists()


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


@pytest.mark.parametrize("how", ["devices", "slurm", "launcher"])
def test_several_processes_make_no_export(
    start: Start,
    child: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    words = ["--trainer.devices", "2"] if how == "devices" else []
    if how == "slurm":
        monkeypatch.setenv("SLURM_NTASKS", "1")
        monkeypatch.setenv("SLURM_JOB_NAME", "train")
    elif how == "launcher":
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert start("--config", "second.yaml", *words) == 1
    assert "run first, on one: python train.py --config first.yaml" in capsys.readouterr().err
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


@pytest.mark.slow
def test_help_takes_at_most_15_seconds() -> None:
    # Processor time: that of the clock depends on what else the machine does.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "--run_name" in shown.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 15


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
    assert len(list(Path("runs/line/starts").glob("*.json"))) == 2
    check_export("runs/line/export", "line.yaml")
    # One process more or less is the same run, and it is finished.
    assert start("--config", "line.yaml") == 0
    assert len(steps()) == 6


@pytest.mark.slow
def test_two_processes_predict_and_stop(start: Start, tmp_path: Path) -> None:
    stopped = ddp(tmp_path, "--mode", "predict", stop="predict 1 SIGTERM 0")
    assert stopped.returncode == 143, stopped.stderr
    assert ddp(tmp_path, "--mode", "predict").returncode == 0
