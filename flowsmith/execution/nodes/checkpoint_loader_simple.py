"""CheckpointLoaderSimple: MODEL, CLIP and VAE of a checkpoint."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("CheckpointLoaderSimple", group=lambda row: str(row["ckpt_name"]), order=3)
def load(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Load the checkpoint that the rows name."""
    checkpoint = library.checkpoint(str(rows[0]["ckpt_name"]))
    return [(checkpoint.model, checkpoint.text, checkpoint.vae)] * len(rows)
