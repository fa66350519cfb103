"""Learning rates that rise and fall over a run, whose length the trainer knows."""

import math
from typing import Any

import torch
from lightning import Trainer

from flowsmith.objectives.schedule import linear_schedule


def planned_steps(trainer: Trainer, steps_per_batch: int = 1) -> int | None:
    """Return the optimizer steps from a run's start to its end, None if it has no end of its own.

    Lightning's own estimate takes a batch for at most one step, and is infinite for a run without an end.

    Args:
        trainer: Whose ``max_steps`` counts optimizer steps, and ``max_epochs`` epochs; -1 sets no end.
        steps_per_batch: Steps in one ``training_step``; above 1 only under manual optimization.
    """
    ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        trainer.fit_loop.setup_data()  # else the number of batches is not known yet
        batches = trainer.num_training_batches / trainer.accumulate_grad_batches
        if math.isfinite(batches):
            ends.append(math.ceil(batches) * trainer.max_epochs * steps_per_batch)
    return min(ends, default=None)


def rise_and_fall(trainer: Trainer, optimizer: torch.optim.Optimizer, warmup: float) -> dict[str, Any]:
    """Return what ``configure_optimizers`` does: a linear rise, then a linear fall to 0 at the run's end.

    Args:
        trainer: Of the run; where it has no end, the learning rate stays at its peak.
        optimizer: Its learning rate is the peak.
        warmup: Share of all steps in which it rises, 0..1.
    """
    total = planned_steps(trainer)
    rising = round(warmup * (total or 0))
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: linear_schedule(step, rising, total)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
