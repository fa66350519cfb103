"""CLIPSetLastLayer: a CLIP that ends before its last layers."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("CLIPSetLastLayer")
def patch(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Patch each row's text encoder; the weights stay shared."""
    return [(row["clip"].stopped_at(int(row["stop_at_clip_layer"])),) for row in rows]
