"""Nodes that make and change LATENTs. Sizes are in pixels, of which ComfyUI counts eight a latent."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Outputs, in_one, node
from flowsmith.execution.nodes.values import EmptyLatent, Latent
from flowsmith.execution.scaling import scale_by, scale_to, sides_in_ratio

_PIXELS = 8  # a latent's side; what a node knows without the checkpoint
_LEAST = 64  # pixels, of a side that follows from the other


@node("EmptyLatentImage", "EmptySD3LatentImage")
class EmptyLatentImage:
    """Latents of nothing, in pixels until a checkpoint says what a latent is."""

    width: int
    height: int
    batch_size: int = 1

    def run(self, library: ModelLibrary) -> Outputs:
        """Note the size."""
        return (EmptyLatent(self.width, self.height, self.batch_size),)


@node("LatentUpscaleBy")
class LatentUpscaleBy:
    """Latents resized by a factor."""

    samples: Latent
    upscale_method: str
    scale_by: float

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Resize the rows' latents together."""
        method, factor = rows[0].upscale_method, rows[0].scale_by
        tensors = [row.samples for row in rows if isinstance(row.samples, Tensor)]
        if tensors:
            return in_one(lambda x: scale_by(x, method, factor), tensors)
        return [(row.samples.scaled(factor),) for row in rows if isinstance(row.samples, EmptyLatent)]


@node("LatentUpscale")
class LatentUpscale:
    """Latents resized to a size in pixels; a side of 0 follows from the other one."""

    samples: Latent
    upscale_method: str
    width: int
    height: int
    crop: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Resize the latents."""
        samples = self.samples
        if not self.width and not self.height:
            return (samples,)
        given = [max(_LEAST, side) if side else 0 for side in (self.width, self.height)]
        old = samples.size if isinstance(samples, EmptyLatent) else (samples.shape[-1], samples.shape[-2])
        width, height = (max(_LEAST, side) for side in sides_in_ratio(given[0], given[1], *old))
        if isinstance(samples, EmptyLatent):
            return (samples.resized(width, height),)
        size = height // _PIXELS, width // _PIXELS
        return (scale_to(samples, self.upscale_method, *size, self.crop == "center"),)


@node("LatentComposite")
class LatentComposite:
    """Latents laid over others, with soft edges where there is a picture around them."""

    samples_to: Latent
    samples_from: Latent
    x: int
    y: int
    feather: int = 0

    def run(self, library: ModelLibrary) -> Outputs:
        """Lay them over; what lies outside is cut off. Nothing laid over nothing is nothing."""
        if isinstance(self.samples_to, EmptyLatent) and isinstance(self.samples_from, EmptyLatent):
            return (self.samples_to,)
        below = _tensor(self.samples_to, self.samples_from).clone()
        above = _tensor(self.samples_from, below)
        top, left, fade = self.y // _PIXELS, self.x // _PIXELS, self.feather // _PIXELS
        above = above[..., : below.shape[-2] - top, : below.shape[-1] - left]
        place = below[..., top : top + above.shape[-2], left : left + above.shape[-1]]
        down = _edges(above.shape[-2], fade, top > 0, top + above.shape[-2] < below.shape[-2])
        across = _edges(above.shape[-1], fade, left > 0, left + above.shape[-1] < below.shape[-1])
        weight = torch.outer(down, across).to(below)
        place.copy_(above * weight + place * (1 - weight))
        return (below,)


def _tensor(latent: Latent, other: Latent) -> Tensor:
    """Return latents, zeros for nothing, with as many channels as the other ones."""
    if isinstance(latent, Tensor):
        return latent
    assert isinstance(other, Tensor)  # of two empty ones nothing is asked
    size = latent.height // _PIXELS, latent.width // _PIXELS
    return other.new_zeros(latent.images, other.shape[1], *size)


def _edges(length: int, fade: int, start: bool, end: bool) -> Tensor:
    rise = (torch.arange(1, length + 1) / max(fade, 1)).clamp(max=1)
    whole = torch.ones(length)
    return (rise if start else whole) * (rise.flip(0) if end else whole)


@node("LatentCrop")
class LatentCrop:
    """A rectangle cut out of latents, moved inside where it would reach beyond them."""

    samples: Latent
    width: int
    height: int
    x: int
    y: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Cut it out."""
        if isinstance(self.samples, EmptyLatent):
            return (self.samples.resized(self.width, self.height),)
        height, width = self.samples.shape[-2:]
        top, left = min(self.y // _PIXELS, height - 8), min(self.x // _PIXELS, width - 8)
        return (
            self.samples[
                ..., top : top + self.height // _PIXELS, left : left + self.width // _PIXELS
            ].contiguous(),
        )


@node("RepeatLatentBatch")
class RepeatLatentBatch:
    """The same latents several times."""

    samples: Latent
    amount: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Repeat them."""
        if isinstance(self.samples, EmptyLatent):
            one = self.samples
            return (EmptyLatent(one.width, one.height, one.images * self.amount, one.scales),)
        return (self.samples.repeat(self.amount, 1, 1, 1),)
