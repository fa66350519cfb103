"""RescaleCFG: a MODEL whose guided guesses are brought back towards the contrast of unguided ones."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("RescaleCFG")
def patch(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Patch each row's model; the weights stay shared."""
    return [(row["model"].rescaled(float(row["multiplier"])),) for row in rows]
