"""Finds the TensorBoard writer of a trainer."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def tensorboard_of(trainer: Trainer) -> Any:
    """Return the `SummaryWriter` on the first process; None elsewhere, in sanity checking, or without such a logger."""
    if not trainer.is_global_zero or trainer.sanity_checking:
        return None
    return next(
        (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None
    )
