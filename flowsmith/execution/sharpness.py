"""Blurring and sharpening the way that ComfyUI's nodes do."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsmith.execution.errors import ExecutionError

_GAIN = 10.0  # of ``alpha``


def blur(images: Tensor, sigma: float) -> Tensor:
    """Return images [n, c, h, w] blurred by a Gaussian of ``sigma`` pixels over 3 x 3; borders are mirrored.

    Raises:
        ExecutionError: An image of one pixel across has nothing to mirror.
    """
    if min(images.shape[-2:]) < 2:
        raise ExecutionError(
            f"an image of {images.shape[-2]} x {images.shape[-1]} cannot be blurred or sharpened; give a larger one"
        )
    weights = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / (2 * sigma**2)).to(images)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    channels = images.shape[1]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)


def sharpen(images: Tensor, sigma: float, alpha: float) -> Tensor:
    """Return ``x + 10 * alpha * (x - blurred x)`` of images [n, c, h, w], cut to [0, 1].

    The blur is Gaussian over 3 x 3 pixels, its standard deviation ``sigma`` pixels; borders are mirrored.

    Raises:
        ExecutionError: See `blur`.
    """
    blurred = blur(images, sigma)
    return (images + _GAIN * alpha * (images - blurred)).clamp(0, 1)
