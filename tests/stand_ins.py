"""Small stages that stand in for the real ones where only the command line is under test."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.processes import rank_and_world
from datamodules.resumable_batches import Resumable
from flowsmith.errors import FlowsmithError


class LineModule(LightningModule):
    """Fits y = weight * x; every step and its data is written to a log, one for each rank.

    ``STAND_IN_STOP="train 4 SIGTERM 0"`` in the environment sends that signal to rank 0 during step 4 of
    training; a fifth word sends it twice.

    Args:
        lr: Learning rate.
        kind: A choice, for the error that names choices.
        log: Where each step is told.
        source: An input file, or the folder of an export.
    """

    def __init__(
        self,
        lr: float = 0.1,
        kind: Literal["plain", "fancy"] = "plain",
        log: str = "steps.jsonl",
        source: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if lr <= 0:
            raise FlowsmithError(f"lr={lr}: goes nowhere or uphill; use a number above 0")
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.lr, self.log_file = lr, Path(log)

    def _tell(self, stage: str, step: int, batch: Tensor) -> None:
        stop = os.environ.get("STAND_IN_STOP", "").split()
        if stop[:2] == [stage, str(step)] and stop[3] == str(self.global_rank):
            os.kill(os.getpid(), getattr(signal, stop[2]))
            if len(stop) > 4:
                time.sleep(0.3)
                os.kill(os.getpid(), getattr(signal, stop[2]))
        with self.log_file.with_suffix(f".{self.global_rank}.jsonl").open("a") as stream:
            stream.write(json.dumps({"stage": stage, "step": step, "x": batch.tolist()}) + "\n")

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self._tell("train", self.global_step, batch)
        loss = ((self.weight * batch - 2 * batch) ** 2).mean()
        self.log("loss", loss.detach())
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self._tell("validation", batch_idx, batch)
        self.log("error", (self.weight.detach() - 2).abs(), sync_dist=True)

    def predict_step(self, batch: Tensor, batch_idx: int) -> None:
        self._tell("predict", batch_idx, batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class ExportingModule(LineModule):
    """The same, with something to hand over."""

    def export(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "weight.json").write_text(json.dumps({"weight": self.weight.item()}))


class RowsWriter(Callback):
    """Hands over what was predicted, as collecting does."""

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.default_root_dir) / "export"
        folder.mkdir(exist_ok=True)
        (folder / "rows.json").write_text("[1, 2]")


class LineBatches(Resumable):
    """Batches in order, on each process every n-th number, from where the trainer stands in its epoch."""

    def __init__(self, data: LightningDataModule, numbers: Tensor, size: int) -> None:
        self.data, self.numbers, self.size = data, numbers, size

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[Tensor]:
        assert self.data.trainer is not None
        yield from self._batches()[
            self.data.trainer.fit_loop.epoch_loop.batch_progress.current.ready % len(self) :
        ]

    def _batches(self) -> tuple[Tensor, ...]:
        rank, world = rank_and_world(self.data)
        batches: tuple[Tensor, ...] = self.numbers[rank::world].split(self.size)
        return batches


class LineData(LightningDataModule):
    """Numbers 1, 2, 3, … in order.

    Args:
        batches: Batches of training.
        batch_size: Numbers a batch.
        validation_batches: Batches of validation.
        torn: Refuse in ``setup``, as for a file that cannot be read.
    """

    def __init__(
        self, batches: int = 6, batch_size: int = 2, validation_batches: int = 3, torn: bool = False
    ) -> None:
        super().__init__()
        self.batches, self.batch_size, self.validation_batches = batches, batch_size, validation_batches
        self.torn = torn

    def setup(self, stage: str | None = None) -> None:
        if self.torn:
            raise FlowsmithError("rows.parquet: torn")

    def _numbers(self, batches: int) -> Tensor:
        return torch.arange(1, 1 + batches * self.batch_size) / 10

    def _loader(self, batches: int) -> DataLoader[Any]:
        return DataLoader(self._numbers(batches), batch_size=self.batch_size)  # type: ignore[arg-type]

    def train_dataloader(self) -> LineBatches:
        return LineBatches(self, self._numbers(self.batches), self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.validation_batches)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.batches)
