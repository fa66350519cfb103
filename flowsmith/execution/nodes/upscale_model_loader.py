"""UpscaleModelLoader: an UPSCALE_MODEL."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("UpscaleModelLoader", group=lambda row: str(row["model_name"]), order=2)
def load(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Load the upscale model that the rows name."""
    return [(library.upscaler(str(rows[0]["model_name"])),)] * len(rows)
