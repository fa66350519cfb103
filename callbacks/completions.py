"""Shows what the policy writes while it learns."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from callbacks.candidate_callback import CallbackOrderError
from callbacks.tensorboard import tensorboard_of
from flowsmith.policy.completions import Completions as Learned
from flowsmith.policy.completions import write_table


class Completions(Callback):
    """Every so many cycles, keeps what was learned from: all samples as parquet, some as TensorBoard text.

    The files are ``completions/cycle-000012.parquet`` in the run's folder; their numbers are those of the logged
    ``rollout_step``. Columns: `flowsmith.policy.completions.SCHEMA`.

    Args:
        every: Cycles from one to the next, >= 1.
        prompts: Prompts shown as text.
        samples: Flows shown of each, the best first.

    Raises:
        CallbackOrderError: A number leaves its range; in ``setup``: the module does not sample.
    """

    def __init__(self, every: int = 10, prompts: int = 4, samples: int = 2) -> None:
        if every < 1 or min(prompts, samples) < 0:
            raise CallbackOrderError(
                f"every={every}, prompts={prompts}, samples={samples}: keep completions every 1 or more cycles, and "
                "show 0 or more"
            )
        self._every, self._prompts, self._samples = every, prompts, samples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look whether there will be any."""
        if not hasattr(pl_module, "completions"):
            raise CallbackOrderError(
                f"Completions shows what GRPOModule samples, and {type(pl_module).__name__} samples nothing; remove "
                "it from this stage's callbacks"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the cycle that has just ended; each process knows all of it, the first one writes."""
        module: Any = pl_module
        learned: Learned | None = module.completions
        if learned is None or module.cycle % self._every or not trainer.is_global_zero:
            return
        codec = module.policy.codec
        if not getattr(trainer, "fast_dev_run", False):  # a trial leaves nothing behind
            file = Path(trainer.default_root_dir) / "completions" / f"cycle-{module.cycle:06d}.parquet"
            write_table(file, learned.table(codec, module.cycle))
        writer = tensorboard_of(trainer)
        if writer is not None and self._prompts and self._samples:
            text = learned.text(codec, self._prompts, self._samples)
            writer.add_text("train/completions", text, module.cycle)
