"""Hands the trained model over: an export folder with its stamp, once training is through."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from flowsmith.exports import stamp_export
from flowsmith.files import atomic_write


@runtime_checkable
class Exportable(Protocol):
    """A LightningModule that later stages build on."""

    def export(self, folder: Path) -> None:
        """Write everything that later stages need into ``folder``, which is not there yet; no pickle."""


class Export(Callback):
    """Exports at the end of training, whole or not at all; added where a module can export.

    Args:
        folder: Where the export goes.
        made_by: Run name and fingerprint of its settings, for the stamp.
        inputs: Path -> fingerprint of what the run was made from, for the stamp.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        self.folder = folder
        self.made_by = made_by
        self.inputs = inputs

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the export on rank 0; a run that was stopped or failed does not come here."""
        if trainer.is_global_zero and isinstance(pl_module, Exportable):
            with atomic_write(self.folder) as temporary:
                pl_module.export(temporary)
                stamp_export(temporary, self.made_by, self.inputs)
