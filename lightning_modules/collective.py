"""What training needs of several processes beyond averaged gradients; on one process each is a no-op."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from lightning import LightningModule
from torch import Tensor

from flowsmith.objectives.metrics import Metrics, divided, packed


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


def averaged(module: LightningModule, metrics: Metrics) -> dict[str, Tensor]:
    """Add up (sum, count) pairs over processes, then divide; the same names must be there on each."""
    return divided(metrics, summed(module, packed(metrics)))
