"""Resizing latents and images the way that ComfyUI's nodes do."""

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowsmith.execution.errors import ExecutionError

Method = Literal["nearest-exact", "bilinear", "area", "bicubic", "bislerp", "lanczos"]


def scale_by(x: Tensor, method: str, factor: float) -> Tensor:
    """Resize ``x`` [n, c, h, w] to ``round(size * factor)`` in both directions.

    "lanczos" takes images in [0, 1] and rounds through 8 bits; "bislerp" is made for latents.

    Raises:
        ExecutionError: Unknown method, or nothing would be left of the picture.
    """
    return scale_to(x, method, *scaled_size(x.shape[-2], x.shape[-1], factor))


def scale_to(x: Tensor, method: str, height: int, width: int, cut: bool = False) -> Tensor:
    """Resize ``x`` [n, c, h, w] as `scale_by` does, to a given size.

    Args:
        x: Images or latents.
        method: How.
        height: To be had.
        width: To be had.
        cut: Cut off what the new sides' ratio has no room for, half of it on either side; otherwise the picture is
            stretched.

    Raises:
        ExecutionError: Unknown method, or nothing would be left of the picture.
    """
    if method not in get_args(Method):
        raise ExecutionError(
            f"upscale_method={method!r} is unknown; use one of {', '.join(get_args(Method))}"
        )
    if min(height, width) < 1:
        raise ExecutionError(f"{width} x {height} is no size; use 1 or more")
    if cut:
        x = _centre_of_ratio(x, height, width)
    if method == "bislerp":
        return bislerp(x, height, width)
    if method == "lanczos":
        return lanczos(x, height, width)
    return F.interpolate(x, size=(height, width), mode=method)


def _centre_of_ratio(x: Tensor, height: int, width: int) -> Tensor:
    old_height, old_width = x.shape[-2:]
    old, new = old_width / old_height, width / height
    left = round((old_width - old_width * (new / old)) / 2) if old > new else 0
    top = round((old_height - old_height * (old / new)) / 2) if old < new else 0
    return x[..., top : old_height - top, left : old_width - left]


def sides_in_ratio(width: int, height: int, old_width: int, old_height: int) -> tuple[int, int]:
    """Return width and height; one that is 0 follows from the other and the old ratio, at least 1."""
    if not width:
        return max(1, round(old_width * height / old_height)), height
    return width, height or max(1, round(old_height * width / old_width))


def scaled_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """Return the rounded new size; halves go to the even number.

    Raises:
        ExecutionError: A side would be rounded away.
    """
    size = round(height * factor), round(width * factor)
    if min(size) < 1:
        raise ExecutionError(f"scale_by={factor} leaves nothing of {height}x{width}; use a greater factor")
    return size


def lanczos(x: Tensor, height: int, width: int) -> Tensor:
    """Resize images [n, c, h, w] in [0, 1] by Pillow's Lanczos filter on 8-bit values."""
    from PIL import Image

    resized = []
    for image in x:
        pixels = (255.0 * image.movedim(0, -1)).clamp(0, 255).to(torch.uint8).cpu().numpy()
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        resized.append(torch.from_numpy(np.asarray(picture).astype(np.float32) / 255.0).movedim(-1, 0))
    return torch.stack(resized).to(x.device)


def bislerp(x: Tensor, height: int, width: int) -> Tensor:
    """Resize latents [n, c, h, w], turning from pixel vector to pixel vector on a sphere.

    Linear mixing of two unlike latent vectors shortens them, which a VAE shows as blur. Here directions are
    interpolated along the arc and lengths linearly, first across, then down.
    """
    across = _turn_along(x.movedim(1, -1).float(), width)  # [n, h, w, c], along w
    down = _turn_along(across.transpose(1, 2), height)  # along h
    return down.transpose(1, 2).movedim(-1, 1).to(x.dtype)


def _turn_along(x: Tensor, size: int) -> Tensor:
    """Interpolate ``x`` [n, other, old, c] along its third axis to ``size``, sample centres aligned."""
    old = x.shape[2]
    position = ((torch.arange(size, device=x.device) + 0.5) * (old / size) - 0.5).clamp(min=0)
    low = position.floor().long()
    part = (position - low).view(-1, 1)
    return _slerp(x[:, :, low], x[:, :, (low + 1).clamp(max=old - 1)], part)


def _slerp(a: Tensor, b: Tensor, part: Tensor) -> Tensor:
    """Interpolate vectors along the last axis; equal and opposite directions have no arc to follow."""
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a = torch.where(length_a > 0, a / length_a, 0)
    unit_b = torch.where(length_b > 0, b / length_b, 0)
    cosine = (unit_a * unit_b).sum(-1, keepdim=True)
    angle = cosine.clamp(-1, 1).acos()
    direction = (((1 - part) * angle).sin() * unit_a + (part * angle).sin() * unit_b) / angle.sin()
    turned = direction * length_a.lerp(length_b, part.expand_as(length_a))
    turned = torch.where(cosine > 1 - 1e-5, a, turned)
    return torch.where(cosine < 1e-5 - 1, a.lerp(b, part.expand_as(a)), turned)
