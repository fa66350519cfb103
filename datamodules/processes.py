"""Which process of how many a datamodule reads for."""

from lightning import LightningDataModule


def rank_and_world(data: LightningDataModule) -> tuple[int, int]:
    """Return this process's rank and the number of processes; 0 and 1 without a trainer."""
    return (0, 1) if data.trainer is None else (data.trainer.global_rank, data.trainer.world_size)
