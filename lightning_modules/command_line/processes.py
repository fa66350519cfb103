"""How many processes a start asks for, and whether it got them."""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from flowsmith.errors import FlowsmithError

_LAUNCHER = "FLOWSMITH_LAUNCHER"  # process id of the rank that started this one


class ProcessError(FlowsmithError):
    """The processes that were started are not those that were asked for."""


def is_rank_zero() -> bool:
    """Whether this is the one process that writes, told before there is a trainer to ask."""
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def requested_processes(trainer: Mapping[str, Any]) -> int:
    """Return devices x nodes of a trainer's settings, "auto" as Lightning takes it.

    Raises:
        ProcessError: ``devices`` is no number of processes.
    """
    given, accelerator = trainer["devices"], trainer["accelerator"]
    devices = given
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    if isinstance(devices, list | tuple):
        devices = len(devices)
    if devices in ("auto", -1):
        # On CPU, "auto" is one process.
        devices = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 1
        devices = max(devices, 1)  # where there is none, Lightning falls back or says so
    if not isinstance(devices, int) or devices < 1:
        raise ProcessError(
            f"trainer.devices={given}: no number of processes; give 1 or more, a list of devices like 0,1 or auto"
        )
    return devices * int(trainer["num_nodes"] or 1)


def started_with_others() -> bool:
    """Whether a scheduler or launcher started this process, so that others may stand beside it."""
    by_hand = "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ
    return by_hand or SLURMEnvironment.detect() or int(os.environ.get("WORLD_SIZE", "1")) > 1


def check_world_size(got: int, requested: int) -> None:
    """Refuse more or fewer processes than asked for; in some allocations Lightning trains on without a word.

    Raises:
        ProcessError: The numbers differ, or srun started several tasks that would know nothing of each other.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and not SLURMEnvironment.detect():
        raise ProcessError(
            f"srun started {tasks} tasks of job '{os.environ.get('SLURM_JOB_NAME', '')}', which Lightning takes for "
            "an interactive one: each would train by itself, all into one run folder; give the job another name "
            "than bash or interactive (srun --job-name=train), or start one task"
        )
    if got != requested:
        slurm = f" (SLURM_NTASKS={os.environ['SLURM_NTASKS']})" if "SLURM_NTASKS" in os.environ else ""
        raise ProcessError(
            f"trainer.devices x trainer.num_nodes = {requested}, but {got} process(es) run{slurm}; "
            "start as many tasks as devices: #SBATCH --ntasks-per-node = --trainer.devices, "
            "#SBATCH --nodes = --trainer.num_nodes"
        )


def slurm_environment() -> SLURMEnvironment | None:
    """Return the tasks that SLURM started, None where it started none.

    Raises:
        ProcessError: They were asked for in a way that leaves open how many stand on which node.
    """
    if not SLURMEnvironment.detect():
        return None
    try:
        # Its own handlers would checkpoint in the middle of a step; `Preemption` requeues.
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise ProcessError(" ".join(str(error).split())) from error


def check_layout(trainer: Trainer) -> None:
    """Refuse as many tasks as asked for, but other ones on a node; Lightning would only say so in the middle of fit.

    Raises:
        ProcessError: Tasks on a node are not the devices, or nodes not the nodes.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    try:
        launcher.cluster_environment.validate_settings(launcher.num_processes, launcher.num_nodes)
    except ValueError as error:
        raise ProcessError(" ".join(str(error).split())) from error


def is_of_lost_rank(error: BaseException) -> bool:
    """Whether a collective failed because another process has gone; why is what that one tells."""
    if not torch.distributed.is_initialized():
        return False
    # Gloo's are plain RuntimeErrors.
    gloo = isinstance(error, RuntimeError) and "peer" in str(error)
    return gloo or isinstance(error, torch.distributed.DistError)


def end_with_launcher(trainer: Trainer) -> None:
    """Let a rank that another one started end within a second of it.

    Lightning ends all ranks of a machine when one that it started dies. When the first is killed nobody is left to
    do so, and the others would wait for it, in a collective of NCCL for half an hour.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    if not launcher.cluster_environment.creates_processes_externally:
        os.environ[_LAUNCHER] = str(os.getpid())  # inherited by whom it starts
    elif parent := os.environ.get(_LAUNCHER):
        threading.Thread(target=_end_after, args=(int(parent),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
