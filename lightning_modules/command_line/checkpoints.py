"""Checkpoints: all of a run's in its folder, each whole or absent, and a damaged one told as that."""

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from flowsmith.run_folder import RunFolder

_WRITTEN = {"state_dict", "pytorch-lightning_version"}  # in every checkpoint, of weights alone too


class CheckpointError(FlowsmithError):
    """A checkpoint cannot be read."""


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

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Load as `TorchCheckpointIO` does.

        Raises:
            CheckpointError: The file is no whole checkpoint.
        """
        cause: Exception | None = None
        checkpoint: Any = None
        try:
            checkpoint = super().load_checkpoint(path, *arguments, **options)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            cause = error
        if cause is None and isinstance(checkpoint, dict) and checkpoint.keys() >= _WRITTEN:
            return checkpoint
        told = (str(cause) or type(cause).__name__).splitlines()[0] if cause else "a file of something else"
        raise CheckpointError(
            f"{path}: damaged, or no checkpoint ({told}); "
            "go on from another with --ckpt_path, or start over with --fresh"
        ) from cause


def checkpoint_callbacks(
    given: Sequence[Callback], folder: RunFolder, wanted: bool, dry: bool
) -> list[Callback]:
    """Return the callbacks, all that keep checkpoints doing so in the run's folder.

    Args:
        given: What the config lists; a `ModelCheckpoint` with a folder of its own keeps that.
        folder: The run's folder.
        wanted: Whether one is added where the config lists none.
        dry: A trial run, which saves nothing.
    """
    callbacks = list(given)
    if wanted and not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        callbacks.append(ModelCheckpoint(filename="{step}"))
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            if not callback.dirpath:
                callback.dirpath = str(folder.checkpoints.resolve())
                # A run goes on from its last.ckpt, whoever wrote it: never from one beside a last-v1.ckpt.
                callback.save_last = callback.save_last or True
                callback._enable_version_counter = False
            # In a trial too, Lightning would save the last.
            callback.save_last = callback.save_last and not dry
    return callbacks
