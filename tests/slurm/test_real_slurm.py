"""The batch files on a real SLURM: two nodes, its warning, a task that is killed, an array.

Run where Debian's packages are installed and the daemons may be started: ``apt-get install slurm-wlm munge``.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lightning_modules.command_line.config_files import ROOT
from tests.processes import ended, train
from tests.resume.world import differences, held, outcome, runs, wait_for, write_run
from tests.slurm.cluster import Cluster, why_not

pytestmark = [
    pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]  # fmt: skip
# What the batch files ask for beside GPUs, which are not here.
ONE = ("--gres=none", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=1")
TWO = ("--gres=none", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
TRAIN = ("configs/slurm/train.sbatch", "--config", "grpo.yaml", "--run_name")
PATIENCE = 400  # seconds, for a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not pytest's own folder: munge wants its socket where everyone may go.
    with TemporaryDirectory() as folder, Cluster(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a checkout has and a run needs."""
    folder = write_run(tmp_path_factory.mktemp("checkout"))
    for name in ("configs", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def told(checkout: Path, job: int | str) -> str:
    files = sorted(checkout.glob(f"flowsmith-{job}*.out"))
    return "\n".join(file.read_text() for file in files)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, checkout: Path) -> dict[str, Any]:
    """What an undisturbed run on two nodes comes to."""
    job = cluster.submit(checkout, *TWO, *TRAIN, "whole")
    facts = cluster.wait(job, "COMPLETED", "FAILED", seconds=PATIENCE)
    assert facts["JobState"] == "COMPLETED", told(checkout, job)
    assert facts["NodeList"] == f"{cluster.host},{cluster.host}-2"
    assert "GRPOModule begins; 2 processes" in told(checkout, job)
    return outcome(checkout, "whole")


def test_two_nodes_train_together(whole: dict[str, Any]) -> None:
    assert whole["checkpoint"]["cycle"] == 4
    assert all(row["rollout_step"] == step + 1 for step, row in whole["logged"].items())


def test_a_step_tells_its_number_of_tasks(cluster: Cluster) -> None:
    """What `check_world_size` reads; names are not documented to be the same in every version."""
    lines = cluster.ask(
        "srun", "--nodes=2", "--ntasks-per-node=1", "--job-name=interactive", "env"
    ).splitlines()
    assert {"SLURM_STEP_NUM_TASKS=2", "SLURM_NTASKS=2", "SLURM_JOB_NAME=interactive"} <= {*lines}


def test_warned_it_finishes_its_cycle_saves_and_goes_on_by_itself(
    cluster: Cluster, checkout: Path, whole: dict[str, Any]
) -> None:
    """By SLURM's own warning, 300 seconds before a limit that is moved near, and away again for the second start."""
    (checkout / "hold").touch()
    job = cluster.submit(checkout, *TWO, "--time=60", *TRAIN, "warned")
    wait_for(lambda: held(checkout / "runs" / "warned", 2), PATIENCE, lambda: told(checkout, job))
    hours, minutes, _ = map(int, cluster.facts(job)["RunTime"].split(":"))
    cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * hours + minutes + 5}")
    wait_for(lambda: "SIGUSR1: stopping after this batch" in told(checkout, job), 90)
    cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    (checkout / "hold").unlink()
    wait_for(lambda: cluster.facts(job)["Restarts"] == "1", 60, lambda: told(checkout, job))
    facts = cluster.wait(job, "COMPLETED", "FAILED", "TIMEOUT", seconds=PATIENCE)
    log = told(checkout, job)
    assert facts["JobState"] == "COMPLETED", log
    assert f"job {job} goes back into the queue" in log
    assert "GRPOModule goes on from runs/warned/checkpoints/last.ckpt; 2 processes" in log
    assert facts["Restarts"] == "1"
    assert differences(outcome(checkout, "warned"), whole) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_task_ends_the_job_and_submitted_again_it_goes_on(
    cluster: Cluster, checkout: Path, whole: dict[str, Any], rank: int
) -> None:
    name = f"killed-{rank}"
    (checkout / "hold").touch()
    job = cluster.submit(checkout, *TWO, *TRAIN, name)
    wait_for(lambda: held(checkout / "runs" / name, 2), PATIENCE, lambda: told(checkout, job))
    tasks = held(checkout / "runs" / name, 2)
    os.kill(tasks[rank], signal.SIGKILL)
    facts = cluster.wait(job, "COMPLETED", "FAILED", seconds=60)
    wait_for(lambda: not any(runs(task) for task in tasks), 30)
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    assert facts["ExitCode"] != "0:0"
    (checkout / "hold").unlink()
    job = cluster.submit(checkout, *TWO, *TRAIN, name)
    facts = cluster.wait(job, "COMPLETED", "FAILED", seconds=PATIENCE)
    assert facts["JobState"] == "COMPLETED", told(checkout, job)
    assert differences(outcome(checkout, name), whole) == []


def test_tasks_of_an_array_are_runs_of_their_own(cluster: Cluster, checkout: Path) -> None:
    """Two seeds at once; one of them is warned, put back into the queue by itself, and goes on."""
    seeds = [line for line in (ROOT / "configs/slurm/seeds.txt").read_text().splitlines() if "#" not in line]
    (checkout / "hold").touch()
    array = (
        "--array=0-1",
        *ONE,
        "configs/slurm/array.sbatch",
        "configs/slurm/seeds.txt",
        "--config",
        "grpo.yaml",
    )
    job = cluster.submit(checkout, *array)
    folders = [checkout / "runs" / f"seeds-{number}" for number in range(2)]
    wait_for(lambda: all(held(folder) for folder in folders), PATIENCE, lambda: told(checkout, job))
    cluster.ask("scancel", "--signal=USR1", f"{job}_1")
    wait_for(lambda: "SIGUSR1: stopping after this batch" in told(checkout, f"{job}_1"), 30)
    (checkout / "hold").unlink()
    wait_for(lambda: cluster.facts(f"{job}_1")["Restarts"] == "1", 60, lambda: told(checkout, job))
    for number in range(2):
        facts = cluster.wait(f"{job}_{number}", "COMPLETED", "FAILED", seconds=PATIENCE)
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", str(number)), told(checkout, job)
    # No scheduler, no interruption, the same bits.
    words = ("--config", "grpo.yaml", "--run_name", "alone", *seeds[1].split())
    assert ended(train(checkout, *words)) == 0
    assert differences(outcome(checkout, "seeds-1"), outcome(checkout, "alone")) == []
    assert differences(outcome(checkout, "seeds-0"), outcome(checkout, "alone"))
