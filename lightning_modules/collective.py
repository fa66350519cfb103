"""What training needs of several processes beyond averaged gradients; on one process each is a no-op."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from lightning import LightningModule
from torch import Tensor

Value = TypeVar("Value")


def no_sync(module: LightningModule) -> AbstractContextManager[None]:
    """Keep gradients local; for all micro-batches but the last."""
    model: Any = module.trainer.strategy.model
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()


def summed(module: LightningModule, values: Tensor) -> Tensor:
    """Return the sum over processes, on the CPU."""
    return cast(Tensor, module.trainer.strategy.reduce(values.to(module.device), reduce_op="sum")).cpu()


def mean_of_processes(module: LightningModule, values: Tensor) -> Tensor:
    """Return the mean over processes as floating point, on the module's device."""
    return cast(Tensor, module.trainer.strategy.reduce(values.to(module.device).float(), reduce_op="mean"))


def gathered(module: LightningModule, values: Tensor) -> Tensor:
    """Return the values of all processes along the first dimension, in the order of ranks, on the CPU."""
    if module.trainer.world_size == 1:
        return values.cpu()
    return cast(Tensor, module.all_gather(values.to(module.device))).flatten(0, 1).cpu()


def gathered_objects(module: LightningModule, values: Sequence[Value]) -> list[list[Value]]:
    """Return the values of each process, in the order of ranks; processes may have unequal numbers of them."""
    if module.trainer.world_size == 1:
        return [list(values)]
    shares: list[list[Value]] = [[] for _ in range(module.trainer.world_size)]
    torch.distributed.all_gather_object(shares, list(values))
    return shares
