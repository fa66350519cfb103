"""TensorBoard events of a run, none before its folder is open."""

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from flowsmith.run_folder import RunFolder


class RunBoard(TensorBoardLogger):
    """Writes into the run's folder, from when it is told that this is open.

    Lightning asks every logger for its ``experiment`` before data and network are set up, and the usual logger
    opens a file then: in a folder that a start on bad input must not claim, or that ``--fresh`` is about to delete.

    Args:
        folder: The run's folder.

    Attributes:
        opened: Whether files may be written.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder.path, name="", version="", default_hp_metric=False)
        self.opened = False

    @property
    def experiment(self) -> SummaryWriter:
        """The writer; to Lightning this logger has none before the folder is open."""
        if not self.opened:
            raise AttributeError("the run folder is not open yet")
        writer: SummaryWriter = super().experiment
        return writer

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Log them in training; other modes do it before the folder is open, and a validation's tell nothing."""
        if self.opened:
            super().log_hyperparams(*arguments, **options)

    def save(self) -> None:
        """Write what is waiting."""
        if self.opened:
            super().save()
