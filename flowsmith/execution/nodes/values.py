"""What travels along LATENT, NOISE and GUIDER links."""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.models import DiffusionModel, LatentFormat
from flowsmith.execution.scaling import scaled_size


@dataclass(frozen=True)
class EmptyLatent:
    """Latents of nothing, whose channels and size are known only to the checkpoint that will use them.

    Attributes:
        width: In pixels.
        height: In pixels.
        images: How many.
        scales: Upscalings since, in order.
    """

    width: int
    height: int
    images: int = 1
    scales: tuple[float, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels after all upscalings, but for the rounding to latents."""
        factor = math.prod(self.scales)
        return round(self.width * factor), round(self.height * factor)

    def scaled(self, factor: float) -> "EmptyLatent":
        """Return the same, upscaled once more."""
        return replace(self, scales=(*self.scales, factor))

    def resized(self, width: int, height: int) -> "EmptyLatent":
        """Return the same of another size in pixels."""
        return EmptyLatent(width, height, self.images)

    def shape(self, latent: LatentFormat) -> tuple[int, int, int, int]:
        """Return [images, channels, height, width] for a checkpoint; parts of a latent are cut off."""
        height, width = self.height // latent.factor, self.width // latent.factor
        for factor in self.scales:
            height, width = scaled_size(height, width, factor)
        if min(height, width, self.images) < 1:
            raise ExecutionError(
                f"{self.width}x{self.height} is less than one latent; use {latent.factor} or more"
            )
        return self.images, latent.channels, height, width


Latent: TypeAlias = Tensor | EmptyLatent
"""VAE-scaled latents [images, channels, height, width], or none yet."""


def latent_shape(value: Latent, latent: LatentFormat) -> tuple[int, ...]:
    """Return the shape that a latent has for a checkpoint.

    Raises:
        ExecutionError: The latents were made for a checkpoint with other channels.
    """
    if isinstance(value, EmptyLatent):
        return value.shape(latent)
    if value.shape[1] != latent.channels:
        raise ExecutionError(
            f"latents of {value.shape[1]} channels do not fit a checkpoint of {latent.channels}; "
            "sample and decode with checkpoints of one family"
        )
    return tuple(value.shape)


def realised(value: Latent, latent: LatentFormat) -> Tensor:
    """Return a latent as a tensor; an empty one is zeros."""
    shape = latent_shape(value, latent)
    return torch.zeros(shape) if isinstance(value, EmptyLatent) else value


@dataclass(frozen=True)
class Noise:
    """What travels along NOISE links.

    Attributes:
        seed: Of the noise of the start, and of later steps.
        added: Whether the start is noised.
    """

    seed: int
    added: bool = True


@dataclass(frozen=True, eq=False)
class Guider:
    """What travels along GUIDER links: a model under guidance.

    Attributes:
        model: The network.
        positive: What it is guided towards.
        negative: What it is guided away from; at a guidance of 1 it is of no account.
        guidance: How much.
    """

    model: DiffusionModel
    positive: Conditioning
    negative: Conditioning
    guidance: float = 1.0
