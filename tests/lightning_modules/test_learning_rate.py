"""How long a run is, against runs that are run."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.learning_rate import planned_steps, rise_and_fall
from tests.stand_ins import LineData, LineModule


class Plan(Callback):
    """Notes what is planned, and ends a run that would not end by itself."""

    def __init__(self, steps_per_batch: int) -> None:
        self.steps_per_batch = steps_per_batch
        self.steps: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = planned_steps(trainer, self.steps_per_batch)
        trainer.should_stop = self.steps is None


ENDS: list[tuple[dict[str, Any], int, int | None]] = [
    ({"max_epochs": 3}, 1, 18),  # of six batches
    ({"max_epochs": 3, "max_steps": 10}, 1, 10),
    ({"max_epochs": 1, "max_steps": 10}, 1, 6),
    ({"max_epochs": -1, "max_steps": 10}, 1, 10),
    ({"max_epochs": 3, "limit_train_batches": 4}, 1, 12),
    ({"max_epochs": 3, "accumulate_grad_batches": 4}, 1, 6),
    ({"max_epochs": -1}, 1, None),
    ({"max_epochs": 3}, 4, 72),
    ({"max_epochs": 3, "max_steps": 50}, 4, 50),
    ({"max_epochs": -1}, 4, None),
]


@pytest.mark.parametrize(("ends", "steps_per_batch", "steps"), ENDS)
def test_planned_steps(tmp_path: Path, ends: dict[str, Any], steps_per_batch: int, steps: int | None) -> None:
    plan = Plan(steps_per_batch)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0, callbacks=[plan], **ends,
    )  # fmt: skip
    trainer.fit(LineModule(log=str(tmp_path / "steps.jsonl")), LineData(6))
    assert plan.steps == steps
    if steps is not None and steps_per_batch == 1:
        assert trainer.global_step == steps


class Rates(Callback):
    """Notes the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        trainer.should_stop = trainer.max_epochs == -1 and len(self.rates) == 4


class Scheduled(LineModule):
    def configure_optimizers(self) -> Any:
        return rise_and_fall(self.trainer, super().configure_optimizers(), 0.5)


@pytest.mark.parametrize(("epochs", "rates"), [(1, [1 / 3, 2 / 3, 1.0, 0.5]), (-1, [1.0, 1.0, 1.0, 1.0])])
def test_the_rate_rises_over_its_share_and_falls_to_zero_at_the_end(
    tmp_path: Path, epochs: int, rates: list[float]
) -> None:
    noted = Rates()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0, callbacks=[noted],
        max_epochs=epochs,
    )  # fmt: skip
    trainer.fit(Scheduled(lr=1.0, log=str(tmp_path / "steps.jsonl")), LineData(4))
    assert noted.rates == pytest.approx(rates)
