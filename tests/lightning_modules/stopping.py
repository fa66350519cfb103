"""A run that is stopped and resumed, against the same run undisturbed."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer


class Stopped(Exception):
    pass


class Stop(Callback):
    """Saves and ends a run as preemption does: after so many batches, or after its first validation."""

    def __init__(self, checkpoint: Path, batches: int | None) -> None:
        self.checkpoint, self.batches = checkpoint, batches

    def _stop(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        raise Stopped

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.batches:
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.batches is None and not trainer.sanity_checking:
            self._stop(trainer)


def check_resumed_is_undisturbed(
    stage: Callable[[], tuple[LightningModule, LightningDataModule]],
    trainer: Callable[..., Trainer],
    folder: Path,
    batches: int | None,
) -> None:
    """Compare final weights and optimizers bit for bit; ``batches`` None stops after the first validation."""
    module, data = stage()
    undisturbed = trainer()
    undisturbed.fit(module, datamodule=data)

    first, data = stage()
    try:
        trainer(callbacks=[Stop(folder / "stop.ckpt", batches)]).fit(first, datamodule=data)
    except Stopped:
        pass
    else:
        raise AssertionError("the run was never stopped")
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), module.parameters(), strict=True))

    resumed, data = stage()
    again = trainer()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dataloader is not resumable.*")
        again.fit(resumed, datamodule=data, ckpt_path=folder / "stop.ckpt", weights_only=False)
    assert again.global_step == undisturbed.global_step
    torch.testing.assert_close(resumed.state_dict(), module.state_dict(), rtol=0, atol=0)
    states = [t.optimizers[0].state_dict() for t in (again, undisturbed)]
    torch.testing.assert_close(states[0]["state"], states[1]["state"], rtol=0, atol=0)
    assert states[0]["param_groups"] == states[1]["param_groups"]
