"""Prompts for GRPO: a batch a cycle, in an order that a crash cannot change."""

from collections.abc import Iterator
from typing import Any

from lightning import LightningDataModule

from datamodules.processes import rank_and_world
from datamodules.prompt_batches import PromptBatches
from datamodules.resumable_batches import Resumable
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.noise import permutation
from flowsmith.prompts import Prompt, read_prompts


def cycle_prompts(prompts: list[Prompt], count: int, seed: int, cycle: int) -> list[Prompt]:
    """Return the prompts of a cycle: every prompt once, in a new order, before any comes again.

    A prompt never stands twice in one cycle; what a pass leaves over (less than ``count``) waits for the
    next.
    """
    cycles_per_pass = len(prompts) // count
    turn, place = divmod(cycle, cycles_per_pass)
    order = permutation(len(prompts), seed, "prompts", turn)
    return [prompts[i] for i in order[place * count : (place + 1) * count]]


def spare_prompts(prompts: list[Prompt], count: int, seed: int, cycle: int, attempt: int) -> list[Prompt]:
    """Return who may step in for each of a cycle's prompts whose samples are all worth the same.

    Others than the cycle's own, in a new order each cycle, the next of them in each attempt (from 1); once through,
    each stands in for another prompt. Where there are too few others, the cycle's own prompts are tried again.
    """
    own = cycle_prompts(prompts, count, seed, cycle)
    names = {prompt.id for prompt in own}
    order = permutation(len(prompts), seed, "spare", cycle)
    others = [prompts[i] for i in order if prompts[i].id not in names]
    if len(others) < count:
        return own
    start = (attempt - 1) * count
    start += start // len(others)
    return [others[(start + place) % len(others)] for place in range(count)]


class _Cycles(Resumable):
    """One rank's prompts of every cycle that is still to come in this epoch."""

    def __init__(self, data: "Prompts") -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.cycles

    def __iter__(self) -> Iterator[list[Prompt]]:
        data, rank, world = self._data, *rank_and_world(self._data)
        # The module counts finished cycles and keeps the count in its checkpoints: the loader has no state of
        # its own, and prefetching cannot put it ahead of the training.
        start = data.finished_cycles()
        for cycle in range(start, (start // data.cycles + 1) * data.cycles):
            yield cycle_prompts(data.train_prompts, data.batch_prompts, data.seed, cycle)[rank::world]


class Prompts(LightningDataModule):
    """Training prompts by cycle, validation prompts by batch; batches are lists of `Prompt`.

    Args:
        path: JSON lines of prompts with the splits train and validation.
        cycles: Cycles in an epoch (what the trainer counts as batches), >= 1.
        batch_prompts: Prompts in a cycle, over all processes.
        validation_prompts: How many validation prompts to use, from the first; 0: none, else at least one a
            process.
        validation_batch: Prompts in a validation batch, per process, >= 1.
        seed: Of the order.

    Raises:
        PolicyError: A number leaves its range; in ``setup``: too few prompts, or a batch that does not divide
            among the processes.
    """

    def __init__(
        self,
        path: str,
        cycles: int = 100,
        batch_prompts: int = 16,
        validation_prompts: int = 32,
        validation_batch: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(cycles, validation_batch) < 1 or validation_prompts < 0:
            raise PolicyError(
                f"cycles={cycles}, validation_batch={validation_batch}, validation_prompts="
                f"{validation_prompts}: set the first two to 1 or more, the last to 0 (no validation) or more"
            )
        self.path = path
        self.cycles = cycles
        self.batch_prompts = batch_prompts
        self.seed = seed
        self.train_prompts: list[Prompt] = []
        self.validation_prompts: list[Prompt] = []
        self._validation_prompts = validation_prompts
        self._validation_batch = validation_batch

    def setup(self, stage: str | None = None) -> None:
        """Read the prompts."""
        self.train_prompts = read_prompts(self.path, "train")
        self.validation_prompts = read_prompts(self.path, "validation")[: self._validation_prompts]
        if not self.train_prompts:
            raise PolicyError(
                f"path={self.path}: no prompt in it has the split train, so there is nothing to train on; name a file "
                "with some"
            )
        if not 1 <= self.batch_prompts <= len(self.train_prompts):
            raise PolicyError(
                f"batch_prompts={self.batch_prompts}, but {self.path} has {len(self.train_prompts)} training "
                "prompts; a cycle takes different prompts: use a number from 1 to that"
            )
        _, world = rank_and_world(self)
        if self.batch_prompts % world:
            raise PolicyError(
                f"batch_prompts={self.batch_prompts} does not divide among {world} processes; "
                f"use a multiple of {world}"
            )
        if 0 < len(self.validation_prompts) < world:
            raise PolicyError(
                f"validation_prompts={self._validation_prompts} leaves {len(self.validation_prompts)} of {self.path} "
                f"for {world} processes, and each needs one; use {world} or more, or 0 for no validation"
            )

    def spare_prompts(self, cycle: int, attempt: int) -> list[Prompt]:
        """Return who may step in, in an attempt from 1, for each of this process's prompts of a cycle."""
        rank, world = rank_and_world(self)
        return spare_prompts(self.train_prompts, self.batch_prompts, self.seed, cycle, attempt)[rank::world]

    def finished_cycles(self) -> int:
        """Return the cycles that the module has finished; 0 without a trainer."""
        return 0 if self.trainer is None else int(getattr(self.trainer.lightning_module, "cycle", 0))

    # Both are plain iterables that know their rank: the trainer would give a DataLoader a sampler of its own.

    def train_dataloader(self) -> _Cycles:
        """One batch a cycle."""
        return _Cycles(self)

    def val_dataloader(self) -> PromptBatches:
        """This process's share of the validation prompts."""
        rank, world = rank_and_world(self)
        return PromptBatches(self.validation_prompts[rank::world], self._validation_batch)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Prompts are text and stay where they are."""
        return batch
