"""Prompts to propose flows for: each process takes every n-th, none is repeated."""

from typing import Any

from lightning import LightningDataModule

from datamodules.processes import rank_and_world
from datamodules.prompt_batches import PromptBatches
from flowsmith.metrics.geneval.prompt_file import is_geneval_file, read_geneval_prompts
from flowsmith.prompts import Prompt, PromptError, Split, read_prompts


class DesignPrompts(LightningDataModule):
    """Batches of prompts for `DesignModule`.

    Args:
        path: JSON lines of prompts, or GenEval's ``evaluation_metadata.jsonl``, all of the split test.
        splits: Which splits, in this order.
        per_task: How many prompts of each task and split, from the first; 0: all.
        batch: Prompts in a batch, per process. What a batch renders is computed together, so larger is faster.
    """

    def __init__(self, path: str, splits: list[Split], per_task: int = 0, batch: int = 8) -> None:
        super().__init__()
        if batch < 1:
            raise PromptError(f"batch={batch}: use at least 1")
        self._path, self._splits, self._per_task, self._batch = path, splits, per_task, batch
        self.prompts: list[Prompt] = []

    def setup(self, stage: str | None = None) -> None:
        """Read the prompts.

        Raises:
            PromptError: None is left, or fewer than processes.
        """
        self.prompts = []
        for split in self._splits:
            taken: dict[str, int] = {}
            for prompt in self._read(split):
                taken[prompt.task] = taken.get(prompt.task, 0) + 1
                if not self._per_task or taken[prompt.task] <= self._per_task:
                    self.prompts.append(prompt)
        if not self.prompts:
            raise PromptError(
                f"path={self._path}, splits={self._splits}: no prompt is left; name a split it has"
            )
        _, world = rank_and_world(self)
        if len(self.prompts) < world:
            raise PromptError(
                f"path={self._path}, splits={self._splits}, per_task={self._per_task}: {len(self.prompts)} "
                f"prompt(s) for {world} processes; take more prompts, or use --trainer.devices 1"
            )

    def _read(self, split: Split) -> list[Prompt]:
        if is_geneval_file(self._path):
            return [p for p in read_geneval_prompts(self._path) if p.split == split]
        return read_prompts(self._path, split)

    def predict_dataloader(self) -> PromptBatches:
        """This process's share, in batches of lists."""
        rank, world = rank_and_world(self)
        return PromptBatches(self.prompts[rank::world], self._batch)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Prompts are text and stay where they are."""
        return batch
