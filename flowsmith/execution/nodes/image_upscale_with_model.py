"""ImageUpscaleWithModel: an IMAGE enlarged by an UPSCALE_MODEL, by the model's own factor."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


def _group(row: Row) -> Hashable:
    return row["upscale_model"].key, tuple(row["image"].shape)


@register("ImageUpscaleWithModel", group=_group)
def upscale(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Enlarge the rows' images together; what comes out is in [0, 1]."""
    images = [row["image"] for row in rows]
    return [(part,) for part in torch.split(rows[0]["upscale_model"](torch.cat(images)), len(images[0]))]
