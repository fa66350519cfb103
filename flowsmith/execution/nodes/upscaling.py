"""Nodes that enlarge IMAGEs by a network."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, in_one, node
from flowsmith.execution.upscaler import Upscaler


@node("ImageUpscaleWithModel")
class ImageUpscaleWithModel:
    """An image enlarged by an upscale model, by the model's own factor."""

    upscale_model: Upscaler
    image: Tensor

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Enlarge the rows' images together; what comes out is in [0, 1]."""
        return in_one(rows[0].upscale_model, [row.image for row in rows])
