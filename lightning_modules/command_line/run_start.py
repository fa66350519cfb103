"""Writes a start into its run folder at the last moment: whatever cannot work has been refused by then."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from flowsmith.run_folder import RunFolder
from flowsmith.settings import Settings
from lightning_modules.command_line.run_board import RunBoard


class RunStart(Callback):
    """Opens the run folder; the command line puts it in front of all other callbacks.

    Lightning calls it after the data were set up, the network was built and the checkpoint was read, and before
    anything is logged. So a start on bad input claims no folder, and replaces no run.

    Args:
        folder: The run's folder.
        mode: fit, validate, test or predict.
        settings: What decides the run's results; None if this start leaves them alone.
        config: The whole resolved config as YAML.
        facts: What else is worth knowing of this start.
        fresh: Delete the run that is there.
    """

    def __init__(
        self,
        folder: RunFolder,
        mode: str,
        settings: Settings | None,
        config: str,
        facts: Mapping[str, Any],
        fresh: bool,
    ) -> None:
        self.folder, self.mode, self.settings = folder, mode, settings
        self.config, self.facts, self.fresh = config, facts, fresh

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the folder."""
        self._open(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the folder, unless this is a validation inside training."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._open(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the folder."""
        self._open(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the folder."""
        self._open(trainer)

    def _open(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            if self.fresh:
                self.folder.remove()
            self.folder.start(self.mode, self.settings, self.config, self.facts)
        # No rank may read or write in a folder that is about to be replaced.
        trainer.strategy.barrier()
        for logger in trainer.loggers:
            if isinstance(logger, RunBoard):
                logger.opened = True
