"""Nodes that change IMAGEs, and those that hand them out."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, in_one, node
from flowsmith.execution.scaling import scale_by, scale_to, sides_in_ratio
from flowsmith.execution.sharpness import blur, sharpen

_MEGA = 1024 * 1024


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


@node("ImageScale")
class ImageScale:
    """An image resized to a size; a side of 0 follows from the other one."""

    image: Tensor
    upscale_method: str
    width: int
    height: int
    crop: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Resize the image."""
        if not self.width and not self.height:
            return (self.image,)
        old = self.image.shape[-1], self.image.shape[-2]
        width, height = sides_in_ratio(self.width, self.height, *old)
        return (scale_to(self.image, self.upscale_method, height, width, self.crop == "center"),)


@node("ImageScaleToTotalPixels")
class ImageScaleToTotalPixels:
    """An image resized to a number of pixels, its sides' ratio kept but for their rounding."""

    image: Tensor
    upscale_method: str
    megapixels: float
    resolution_steps: int = 1

    def run(self, library: ModelLibrary) -> Outputs:
        """Resize the image."""
        height, width = self.image.shape[-2:]
        factor, step = math.sqrt(self.megapixels * _MEGA / (height * width)), self.resolution_steps
        size = round(height * factor / step) * step, round(width * factor / step) * step
        return (scale_to(self.image, self.upscale_method, *size),)


@node("ImageSharpen")
class ImageSharpen:
    """An image with its difference from a blurred copy enlarged."""

    image: Tensor
    sharpen_radius: int
    sigma: float
    alpha: float

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Sharpen the rows' images together; errors as of `one_pixel`."""
        sigma, alpha = rows[0].sigma, rows[0].alpha
        one_pixel("sharpen_radius", rows[0].sharpen_radius)
        return in_one(lambda x: sharpen(x, sigma, alpha), [row.image for row in rows])


@node("ImageBlur")
class ImageBlur:
    """An image blurred by a Gaussian."""

    image: Tensor
    blur_radius: int
    sigma: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Blur the image; errors as of `one_pixel`."""
        one_pixel("blur_radius", self.blur_radius)
        return (blur(self.image, self.sigma),)


def one_pixel(name: str, radius: int) -> None:
    """Refuse every radius but 1, the only one for which ComfyUI's result is known.

    Raises:
        ExecutionError: It is another.
    """
    if radius != 1:
        raise ExecutionError(
            f"{name}={radius} cannot be run here (what ComfyUI makes of sigma was measured at 1 only); use 1"
        )


@node("ImageInvert")
class ImageInvert:
    """An image's negative."""

    image: Tensor

    def run(self, library: ModelLibrary) -> Outputs:
        """Turn it round."""
        return (1 - self.image,)


@node("ImageCrop")
class ImageCrop:
    """A rectangle cut out of an image; what lies outside is left out."""

    image: Tensor
    width: int
    height: int
    x: int
    y: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Cut it out; it begins inside the image."""
        left, top = min(self.x, self.image.shape[-1] - 1), min(self.y, self.image.shape[-2] - 1)
        return (self.image[..., top : top + self.height, left : left + self.width].contiguous(),)


@node("SaveImage", output="kept")
class SaveImage:
    """The result of a flow. Nothing is written; the file's prefix is of no account here."""

    images: Tensor
    filename_prefix: str = ""

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand the images through, with the first in 8 bits; errors as of `in_8_bits`."""
        return self.images, in_8_bits(self.images[0])


@node("PreviewImage", output="shown")
class PreviewImage:
    """A picture to look at on the way; the result of a flow that keeps none."""

    images: Tensor

    def run(self, library: ModelLibrary) -> Outputs:
        """Hand the images through, with the first in 8 bits; errors as of `in_8_bits`."""
        return self.images, in_8_bits(self.images[0])


def in_8_bits(image: Tensor) -> Tensor:
    """Turn an image [3, h, w] in [0, 1] to 8 bits on the CPU, cutting fractions off like ComfyUI.

    Raises:
        ExecutionError: It holds values that are not finite.
    """
    if not image.isfinite().all():
        raise ExecutionError("the image is not finite; use a smaller cfg, LoRA strength or prompt weight")
    return (image * 255.0).clamp(0, 255).to("cpu", torch.uint8)
