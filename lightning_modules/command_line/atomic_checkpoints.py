"""Checkpoints that are whole or absent, whatever ends the process while one is written."""

from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from flowsmith.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames.

    Lightning's own goes through the system's temporary folder, from which a move to another file system is a
    copy: a process killed during it leaves half of a ``last.ckpt``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save as `TorchCheckpointIO` does, under a temporary name until complete."""
        with atomic_write(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)
