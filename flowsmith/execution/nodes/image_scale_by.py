"""ImageScaleBy: an IMAGE resized."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.scaling import scale_by


def _group(row: Row) -> Hashable:
    return str(row["upscale_method"]), float(row["scale_by"]), tuple(row["image"].shape)


@register("ImageScaleBy", group=_group)
def scale(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Resize the rows' images together."""
    images = [row["image"] for row in rows]
    resized = scale_by(torch.cat(images), str(rows[0]["upscale_method"]), float(rows[0]["scale_by"]))
    return [(part,) for part in torch.split(resized, len(images[0]))]
