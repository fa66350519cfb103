"""How many processes a start asks for, and whether it got them."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from flowsmith.errors import FlowsmithError


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
    return (
        SLURMEnvironment.detect() or "LOCAL_RANK" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1
    )


def check_world_size(got: int, requested: int) -> None:
    """Refuse fewer processes than asked for; in some allocations Lightning trains on them without a word.

    Raises:
        ProcessError: The numbers differ.
    """
    if got != requested:
        slurm = f" (SLURM_NTASKS={os.environ['SLURM_NTASKS']})" if "SLURM_NTASKS" in os.environ else ""
        raise ProcessError(
            f"trainer.devices x trainer.num_nodes = {requested}, but {got} process(es) run{slurm}; "
            "start as many tasks as devices: #SBATCH --ntasks-per-node = --trainer.devices, "
            "#SBATCH --nodes = --trainer.num_nodes"
        )
