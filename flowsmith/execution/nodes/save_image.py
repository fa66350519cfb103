"""SaveImage: the result of a flow. Nothing is written; the file's prefix is of no account here."""

from collections.abc import Sequence
from typing import Any

import torch

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("SaveImage", output=True)
def save(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Hand the images through and turn the first of each row to 8 bits, cutting fractions off like ComfyUI.

    Raises:
        ExecutionError: An image holds values that are not finite.
    """
    saved = []
    for row in rows:
        image = row["images"][0]
        if not image.isfinite().all():
            raise ExecutionError("the image is not finite; use a smaller cfg, LoRA strength or prompt weight")
        saved.append((row["images"], (image * 255.0).clamp(0, 255).to("cpu", torch.uint8)))
    return saved
