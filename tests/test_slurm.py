"""What the batch file launches, with a stand-in for srun that starts the tasks as SLURM would."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_modules.command_line import main
from lightning_modules.command_line.config_files import ROOT
from lightning_modules.command_line.processes import ProcessError, check_world_size, requested_processes
from tests.lightning_modules.command_line.line import LINE, steps

BATCH = ROOT / "configs" / "slurm" / "train.sbatch"
ARRAY = ROOT / "configs" / "slurm" / "array.sbatch"


def directives(batch: Path) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", batch.read_text(), flags=re.MULTILINE)
    return dict(found)


def allocation(nodes: int, tasks_per_node: int) -> dict[str, str]:
    """Return the environment that SLURM gives to the batch shell."""
    return {
        **{
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "flowsmith-train",
            "SLURM_NTASKS": str(nodes * tasks_per_node),
        },
        **{"SLURM_JOB_NUM_NODES": str(nodes), "SLURM_NTASKS_PER_NODE": str(tasks_per_node)},
        **{"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_NODELIST": "127.0.0.1"},
    }


SRUN = """#!{python}
import json, os, signal, subprocess, sys, time
options = [word for word in sys.argv[1:] if word.startswith("--") and sys.argv.index(word) < 2]
command = sys.argv[1 + len(options):]
cpus = os.environ.get("SRUN_CPUS_PER_TASK")
json.dump({{"options": options, "command": command, "cwd": os.getcwd(), "cpus": cpus}}, open("{told}", "w"))
tasks = int(os.environ["SLURM_NTASKS"]) if {start} else 0
each = int(os.environ["SLURM_NTASKS_PER_NODE"])
running = [
    subprocess.Popen(command, start_new_session=True,
                     env=os.environ | {{"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n % each),
                                       "SLURM_NODEID": str(n // each)}})
    for n in range(tasks)
]
# --kill-on-bad-exit: with the first task that fails, all others end, and whatever they started.
while any(task.poll() is None for task in running):
    if any(task.poll() for task in running):
        for task in running:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)
                task.wait()
    time.sleep(0.05)
sys.exit(max([task.wait() for task in running], default=7))
"""


def submit(
    folder: Path,
    *words: str,
    nodes: int = 1,
    tasks: int = 2,
    start: bool = False,
    more: dict[str, str] | None = None,
    batch: Path = BATCH,
) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    """Run the batch file; return how it ended and what srun was told."""
    (folder / "bin").mkdir(exist_ok=True)
    told, srun = folder / "told.json", folder / "bin" / "srun"
    srun.write_text(SRUN.format(python=sys.executable, told=told, start=start))
    srun.chmod(0o755)
    environment = {
        **os.environ,
        **allocation(nodes, tasks),
        **{"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(folder)},
        **(more or {}),
    }
    command = ["bash", str(batch), *words]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=500)
    return done, json.loads(told.read_text()) if told.exists() else {}


@pytest.mark.parametrize(("nodes", "tasks"), [(1, 4), (2, 8)])
def test_the_trainer_gets_what_slurm_gave(tmp_path: Path, nodes: int, tasks: int) -> None:
    done, told = submit(
        tmp_path, "--config", "full/grpo.yaml", "--run_name", "wide", nodes=nodes, tasks=tasks
    )
    assert done.returncode == 7, done.stderr  # srun's own code is the job's
    assert told["options"] == ["--kill-on-bad-exit=1"]
    assert told["cwd"] == str(tmp_path)
    assert told["cpus"] == "1"
    command = told["command"]
    assert isinstance(command, list)
    assert command[:2] == [".venv/bin/python", "train.py"]
    assert command[2:6] == ["--config", "full/grpo.yaml", "--run_name", "wide"]
    assert command[6:] == [
        *("--trainer.devices", str(tasks), "--trainer.num_nodes", str(nodes), "--trainer.strategy", "ddp")
    ]


@pytest.mark.parametrize("batch", [BATCH, ARRAY], ids=lambda path: path.stem)
def test_a_batch_file_asks_for_warning_and_requeue(batch: Path) -> None:
    asked = directives(batch)
    assert asked["signal"] == "USR1@300"
    assert asked["open-mode"] == "append"
    assert "requeue" in asked
    # One task for each GPU, all visible to each: --gpus-per-task would hide them and break their numbers.
    assert asked["gres"] == f"gpu:{asked['ntasks-per-node']}"
    assert not [name for name in asked if name.startswith("gpu")]


@pytest.mark.parametrize("batch", [BATCH, ARRAY], ids=lambda path: path.stem)
def test_it_wants_to_be_submitted(batch: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(["bash", str(batch)], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "submit this file with sbatch" in done.stderr


SWEEP = """# three runs
--model.beta 0.1

   # the next names itself
--model.beta 0.2 --run_name strict
--model.beta $(touch expanded) *
"""


def submit_array(
    folder: Path, *words: str, number: int | None
) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    (folder / "sweep.txt").write_text(SWEEP)
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    more = {} if number is None else {"SLURM_ARRAY_TASK_ID": str(number)}
    return submit(folder, *words, tasks=1, more=more, batch=ARRAY)


@pytest.mark.parametrize(
    ("number", "name", "options"),
    [
        (0, "sweep-0", ["--model.beta", "0.1"]),
        (1, "sweep-1", ["--model.beta", "0.2", "--run_name", "strict"]),  # the last name counts
        (2, "sweep-2", ["--model.beta", "$(touch", "expanded)", "*"]),
    ],
)
def test_a_task_of_an_array_takes_its_line(
    tmp_path: Path, number: int, name: str, options: list[str]
) -> None:
    done, told = submit_array(tmp_path, "sweep.txt", "--config", "full/grpo.yaml", number=number)
    assert done.returncode == 7, done.stderr
    command = told["command"]
    assert isinstance(command, list)
    assert command[2:-6] == ["--run_name", name, "--config", "full/grpo.yaml", *options]
    assert command[-6:-4] == ["--trainer.devices", "1"]
    assert not (tmp_path / "expanded").exists()


@pytest.mark.parametrize(
    ("words", "number", "told"),
    [
        (
            ["sweep.txt"],
            3,
            "sweep.txt holds 3 runs, counted from 0, and run 3 is none; submit it with --array=0-2",
        ),
        (["sweep.txt"], None, "submit this file with --array"),
        ([], 0, "name the file of options"),
    ],
)
def test_an_array_without_its_line_starts_nothing(
    tmp_path: Path, words: list[str], number: int | None, told: str
) -> None:
    done, started = submit_array(tmp_path, *words, number=number)
    assert done.returncode == 1
    assert told in done.stderr
    assert not started


def test_seeds_differ_in_nothing_else() -> None:
    lines = [
        line for line in (ARRAY.parent / "seeds.txt").read_text().splitlines() if not line.startswith("#")
    ]
    expected = "--seed_everything {0} --model.seed {0} --data.seed {0}"
    assert lines == [expected.format(number) for number in range(5)]


@pytest.mark.parametrize(
    ("trainer", "processes"),
    [
        ({"devices": "auto", "accelerator": "cpu", "num_nodes": 1}, 1),
        ({"devices": 2, "accelerator": "cpu", "num_nodes": 1}, 2),
        ({"devices": "4", "accelerator": "gpu", "num_nodes": 2}, 8),
        ({"devices": [0, 3], "accelerator": "gpu", "num_nodes": 1}, 2),
        ({"devices": "0,1,3", "accelerator": "gpu", "num_nodes": 1}, 3),
    ],
)
def test_requested_processes(trainer: dict[str, object], processes: int) -> None:
    assert requested_processes(trainer) == processes


def test_fewer_processes_than_asked_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    check_world_size(8, 8)
    with pytest.raises(ProcessError, match=r"= 2, but 1 process.*SLURM_NTASKS=1.*--ntasks-per-node"):
        check_world_size(1, 2)


def test_tasks_of_a_job_that_counts_as_interactive_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would start as many again from each of them, all writing into one folder."""
    for name, value in {**allocation(1, 2), "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    check_world_size(2, 2)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    with pytest.raises(ProcessError, match=r"2 tasks of job 'interactive'.*srun --job-name=train"):
        check_world_size(2, 2)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # a shell on the node, from which Lightning may start all
    check_world_size(2, 2)


@pytest.mark.parametrize(
    ("nodes", "tasks", "lacking", "words", "message"),
    [
        (2, 1, "", ["--trainer.devices", "2"], "`devices=2` in Lightning, but the number of tasks per node"),
        (1, 2, "SLURM_NTASKS_PER_NODE", ["--trainer.devices", "2"], "Use `--ntasks-per-node=2` instead"),
    ],
)
def test_tasks_that_stand_elsewhere_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nodes: int, tasks: int,
    lacking: str, words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text(yaml.safe_dump(LINE))
    ranks = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    for name, value in (allocation(nodes, tasks) | ranks).items():
        monkeypatch.setenv(name, value)
    if lacking:
        monkeypatch.delenv(lacking)
    assert main("fit", ["--config", "line.yaml", *words, "--trainer.strategy", "ddp"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("runs").exists()


def test_an_allocation_of_one_task_does_not_train_on_one_of_two_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text(yaml.safe_dump(LINE))
    for name, value in (
        allocation(1, 1) | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    ).items():
        monkeypatch.setenv(name, value)
    assert main("fit", ["--config", "line.yaml", "--trainer.devices", "2", "--trainer.strategy", "ddp"]) == 1
    assert "= 2, but 1 process(es) run" in capsys.readouterr().err
    assert not Path("steps.0.jsonl").exists()


def test_a_restarted_job_does_not_delete_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text(yaml.safe_dump(LINE))
    monkeypatch.setenv("STAND_IN_STOP", "train 3 SIGUSR1 0")
    assert main("fit", ["--config", "line.yaml", "--fresh"]) == 138
    monkeypatch.setenv("STAND_IN_STOP", "")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main("fit", ["--config", "line.yaml", "--fresh"]) == 0
    assert steps() == [*range(12)]


@pytest.mark.slow
def test_two_tasks_train_are_warned_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "line.yaml").write_text(yaml.safe_dump(LINE))
    (tmp_path / "train.py").write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\nsleep 3\necho "$@" >> {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    more = {"FLOWSMITH_PYTHON": sys.executable, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    # Rank 1 is warned; rank 0 learns it from the collective, and is the one that asks for the requeue. Rank 1
    # must not leave meanwhile, for that would end rank 0.
    warned = more | {"STAND_IN_STOP": "train 1 SIGUSR1 1"}
    done, _ = submit(tmp_path, "--config", "line.yaml", start=True, more=warned)
    assert done.returncode == 138, done.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    done, _ = submit(tmp_path, "--config", "line.yaml", start=True, more=more | {"SLURM_RESTART_COUNT": "1"})
    assert done.returncode == 0, done.stderr
    assert "ExportingModule goes on from runs/line/checkpoints/last.ckpt; 2 processes" in done.stdout
    for rank in range(2):
        rows = [json.loads(line) for line in (tmp_path / f"steps.{rank}.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if row["stage"] == "train"] == [*range(6)]
