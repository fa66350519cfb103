"""Training batches that know their place: a resumed run goes on after the last batch that it trained on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from lightning import LightningDataModule

from datamodules.processes import rank_and_world
from flowsmith.policy.noise import permutation

Item = TypeVar("Item")
Batch = TypeVar("Batch")


class Resumable:
    """Tells Lightning that a loader goes on where it was; all that this takes stands in checkpoints already."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the place is told by what the trainer or the module counts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


class ResumableBatches(Resumable, Generic[Item, Batch]):
    """One process's batches of an epoch, from where the trainer stands in it.

    A plain iterable, because Lightning restores how many batches of an epoch are done, and then begins a
    ``DataLoader`` at its first batch again. The order is a function of (seed, epoch); each process takes every
    n-th item. A few items come twice where they do not divide, for distributed training needs as many batches
    on each process.

    Args:
        data: Its trainer says epoch, place and process; without one: the first epoch, whole, on one process.
        items: What is trained on, 1 or more.
        size: Items in a batch, per process, >= 1; the last may be smaller.
        collate: Makes a batch of items.
        seed: Of the order.
    """

    def __init__(
        self,
        data: LightningDataModule,
        items: Sequence[Item],
        size: int,
        collate: Callable[[list[Item]], Batch],
        seed: int,
    ) -> None:
        self._data, self._items, self._size, self._collate, self._seed = data, items, size, collate, seed

    def __len__(self) -> int:
        return -(-self._share() // self._size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, done = self._place()
        order = permutation(len(self._items), self._seed, "pairs", epoch)
        rank, world = rank_and_world(self._data)
        mine = [self._items[order[(rank + k * world) % len(order)]] for k in range(self._share())]
        for start in range(done * self._size, len(mine), self._size):
            yield self._collate(mine[start : start + self._size])

    def _share(self) -> int:
        """Return how many items each process takes."""
        _, world = rank_and_world(self._data)
        return -(-len(self._items) // world)

    def _place(self) -> tuple[int, int]:
        """Return the epoch and how many of its batches are done; asked for when the first batch is."""
        trainer: Any = self._data.trainer
        if trainer is None:
            return 0, 0
        # Only a limited number of batches may make an epoch; one that is full is over.
        batches = int(min(len(self), trainer.num_training_batches))
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready % batches
        # Overfitting means the same batches in every epoch.
        return 0 if trainer.overfit_batches else trainer.current_epoch, done
