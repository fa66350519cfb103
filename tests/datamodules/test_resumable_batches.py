"""Which batches of an epoch a process still has to train on: a function of (seed, epoch, place, rank)."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningDataModule

from datamodules.resumable_batches import ResumableBatches

Loader = ResumableBatches[int, list[int]]


def loader(
    count: int = 50,
    size: int = 4,
    epoch: int = 0,
    done: int = 0,
    rank: int = 0,
    world: int = 1,
    limit: float = float("inf"),
    overfit: int = 0,
) -> Loader:
    """Return batches of 0, 1, ... for a trainer that stands where the arguments say."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=done))
    data = LightningDataModule()
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=world,
        current_epoch=epoch,
        num_training_batches=limit,
        overfit_batches=overfit,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    return ResumableBatches(data, range(count), size, list, 7)


def test_an_epoch_is_every_item_once_in_an_order_of_its_own() -> None:
    first, second = list(loader()), list(loader(epoch=1))
    assert sorted(i for batch in first for i in batch) == list(range(50))
    assert [len(batch) for batch in first] == [4] * 12 + [2]
    assert len(loader()) == 13
    assert first == list(loader())
    assert first != second
    assert sorted(i for batch in second for i in batch) == list(range(50))


def test_without_a_trainer_it_is_the_first_epoch() -> None:
    assert list(ResumableBatches(LightningDataModule(), range(50), 4, list, 7)) == list(loader())


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_epoch_goes_on_after_what_is_done(epoch: int) -> None:
    whole = list(loader(epoch=epoch))
    for done in range(13):
        assert list(loader(epoch=epoch, done=done)) == whole[done:]
    assert list(loader(epoch=epoch, done=13)) == whole  # a full epoch is over


def test_a_limited_epoch_is_full_at_its_limit() -> None:
    whole = list(loader(epoch=1))
    assert list(loader(epoch=1, done=3, limit=5)) == whole[3:]
    assert list(loader(epoch=1, done=5, limit=5)) == whole


def test_the_place_is_asked_for_when_the_first_batch_is() -> None:
    """Lightning makes the iterator before it restores the loop's progress."""
    batches = loader()
    iterator = iter(batches)
    trainer = batches._data.trainer
    assert trainer is not None
    trainer.fit_loop.epoch_loop.batch_progress.current.ready = 3
    assert next(iterator) == list(loader())[3]


def test_overfitting_repeats_the_same_batches() -> None:
    assert list(loader(epoch=5, overfit=2)) == list(loader(epoch=0))


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 6), st.data())
def test_processes_share_each_batch_and_have_equally_many(
    count: int, size: int, world: int, data: st.DataObject
) -> None:
    done = data.draw(st.integers(0, -(-count // (size * world)) - 1))
    parts = [list(loader(count, size, 1, done, rank, world)) for rank in range(world)]
    assert len({tuple(map(len, part)) for part in parts}) == 1
    whole = list(loader(count, size * world, 1, done))
    assert len(parts[0]) == len(whole)
    for together, *shares in zip(whole, *parts, strict=True):
        joined = [i for share in shares for i in share]
        # What stands in the batch of one process, and at most world - 1 items again.
        assert set(together) <= set(joined)
        assert len(joined) - len(together) < world
        if len(together) == size * world:
            assert sorted(joined) == sorted(together)
