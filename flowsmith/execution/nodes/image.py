"""Nodes that change IMAGEs, and those that hand them out."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, in_one, node
from flowsmith.execution.scaling import scale_by
from flowsmith.execution.sharpness import sharpen


@node("ImageScaleBy")
class ImageScaleBy:
    """An image resized by a factor."""

    image: Tensor
    upscale_method: str
    scale_by: float

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Resize the rows' images together."""
        method, factor = rows[0].upscale_method, rows[0].scale_by
        return in_one(lambda x: scale_by(x, method, factor), [row.image for row in rows])


@node("ImageSharpen")
class ImageSharpen:
    """An image with its difference from a blurred copy enlarged."""

    image: Tensor
    sharpen_radius: int
    sigma: float
    alpha: float

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Sharpen the rows' images together.

        Raises:
            ExecutionError: The radius is not 1, the only one for which ComfyUI's result is known.
        """
        radius, sigma, alpha = rows[0].sharpen_radius, rows[0].sigma, rows[0].alpha
        if radius != 1:
            raise ExecutionError(
                f"sharpen_radius={radius} cannot be run here (what ComfyUI makes of sigma was measured at 1 "
                "only); use 1, and a greater alpha for more effect"
            )
        return in_one(lambda x: sharpen(x, sigma, alpha), [row.image for row in rows])


@node("SaveImage", output=True)
class SaveImage:
    """The result of a flow. Nothing is written; the file's prefix is of no account here."""

    images: Tensor
    filename_prefix: str = ""

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand the images through and turn the first to 8 bits, cutting fractions off like ComfyUI.

        Raises:
            ExecutionError: It holds values that are not finite.
        """
        image = self.images[0]
        if not image.isfinite().all():
            raise ExecutionError("the image is not finite; use a smaller cfg, LoRA strength or prompt weight")
        return self.images, (image * 255.0).clamp(0, 255).to("cpu", torch.uint8)
