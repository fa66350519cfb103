"""ImageSharpen: an IMAGE with its difference from a blurred copy enlarged."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register

_GAIN = 10.0  # of ``alpha``


def _group(row: Row) -> Hashable:
    return int(row["sharpen_radius"]), float(row["sigma"]), float(row["alpha"]), tuple(row["image"].shape)


@register("ImageSharpen", group=_group)
def sharpen_rows(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Sharpen the rows' images together.

    Raises:
        ExecutionError: The radius is not 1, the only one for which ComfyUI's result is known.
    """
    first, images = rows[0], [row["image"] for row in rows]
    radius = int(first["sharpen_radius"])
    if radius != 1:
        raise ExecutionError(
            f"sharpen_radius={radius} cannot be run here (what ComfyUI makes of sigma was measured at 1 only); "
            "use 1, and a greater alpha for more effect"
        )
    sharpened = sharpen(torch.cat(images), float(first["sigma"]), float(first["alpha"]))
    return [(part,) for part in torch.split(sharpened, len(images[0]))]


def sharpen(images: Tensor, sigma: float, alpha: float) -> Tensor:
    """Return ``x + 10 * alpha * (x - blurred x)`` of images [n, c, h, w], cut to [0, 1].

    The blur is Gaussian over 3 x 3 pixels, its standard deviation ``sigma`` pixels; borders are mirrored.

    Raises:
        ExecutionError: An image of one pixel across has nothing to mirror.
    """
    if min(images.shape[-2:]) < 2:
        raise ExecutionError(
            f"an image of {images.shape[-2]} x {images.shape[-1]} cannot be sharpened; give a larger one"
        )
    weights = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / (2 * sigma**2)).to(images)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    channels = images.shape[1]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    blurred = F.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)
    return (images + _GAIN * alpha * (images - blurred)).clamp(0, 1)
