"""EmptyLatentImage: a LATENT of nothing, in pixels until a checkpoint says what a latent is."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.values import EmptyLatent


@register("EmptyLatentImage")
def empty(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Note the sizes."""
    return [
        (EmptyLatent(int(row["width"]), int(row["height"]), int(row.get("batch_size", 1))),) for row in rows
    ]
