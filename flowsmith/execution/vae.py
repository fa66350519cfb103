"""Autoencoders between pixels and latents, whole or tile by tile."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.residency import Fetch, stay
from flowsmith.execution.tiling import in_tiles

_PIXELS_AT_ONCE = 1 << 22  # of images together; 16 of 512 x 512, so that memory does not follow the batch


@dataclass(frozen=True)
class LatentFormat:
    """How latents relate to pixels and to what the network sees.

    Attributes:
        channels: Latent channels.
        factor: Pixels per latent along each side.
        scale: The network sees ``(latent - shift) * scale``.
        shift: See ``scale``.
    """

    channels: int
    factor: int
    scale: float
    shift: float = 0.0

    def into_model(self, latents: Tensor) -> Tensor:
        """Scale latents of the VAE to those of the network."""
        return (latents - self.shift) * self.scale

    def out_of_model(self, latents: Tensor) -> Tensor:
        """Scale latents of the network to those of the VAE."""
        return latents / self.scale + self.shift


@dataclass(frozen=True, eq=False)
class Vae:
    """An autoencoder between pixels and latents.

    Attributes:
        key: Names the weights.
        model: A diffusers autoencoder.
        latent: The latents that it takes and gives.
        input_scale: The network takes and gives ``(latent - input_shift) * input_scale`` (a TAESD in its own
            layout works on scaled ones).
        input_shift: See ``input_scale``.
        device: Where it runs.
        dtype: Number type of its weights.
        fetch: Brings it there.
    """

    key: str
    model: Any
    latent: LatentFormat
    input_scale: float = 1.0
    input_shift: float = 0.0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    fetch: Fetch = stay

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents [n, c, h, w] into float32 images [n, 3, h * factor, w * factor] in [0, 1]."""
        self.fetch(self.model)
        pixels = latents.shape[-1] * latents.shape[-2] * self.latent.factor**2
        parts = torch.split(self._scaled(latents), max(1, _PIXELS_AT_ONCE // pixels))
        return _picture(torch.cat([self._decoded(part) for part in parts]))

    def decode_tiled(self, latents: Tensor, tile: int = 512, overlap: int = 64) -> Tensor:
        """Do as `decode` does, in tiles, so that memory does not follow the size of the picture.

        Args:
            latents: [n, c, h, w].
            tile: Pixels a side.
            overlap: Pixels in which neighbours fade into each other; at most a quarter of a tile is used.
        """
        self.fetch(self.model)
        run = partial(in_tiles, self._scaled(latents), self._decoded, units=(1, self.latent.factor))
        return _picture(self._three_tilings(run, tile, overlap))

    def encode(self, images: Tensor) -> Tensor:
        """Turn images [n, 3, h, w] in [0, 1] into float32 latents [n, c, h // factor, w // factor].

        Pixels beyond the last whole latent are cut off, half of them on either side. Of a distribution of
        latents its mode is taken, so that nothing is random.

        Raises:
            ExecutionError: The images have other channels, or are smaller than one latent.
        """
        self.fetch(self.model)
        pixels = self._whole(images)
        parts = torch.split(pixels, max(1, _PIXELS_AT_ONCE // pixels[0, 0].numel()))
        return self._unscaled(torch.cat([self._encoded(part) for part in parts]))

    def encode_tiled(self, images: Tensor, tile: int = 512, overlap: int = 64) -> Tensor:
        """Do as `encode` does, in tiles; see `decode_tiled`."""
        self.fetch(self.model)
        run = partial(in_tiles, self._whole(images), self._encoded, units=(self.latent.factor, 1))
        return self._unscaled(self._three_tilings(run, tile, overlap))

    def _three_tilings(self, run: Callable[..., Tensor], tile: int, overlap: int) -> Tensor:
        """Average three tilings, as ComfyUI does: square, and half as high and twice as wide, and turned."""
        side = max(4, tile // self.latent.factor)
        shared = min(overlap // self.latent.factor, side // 4)
        shapes = (side, side), (side // 2, side * 2), (side * 2, side // 2)
        return torch.stack([run(tile=shape, overlap=shared) for shape in shapes]).mean(0)

    def _scaled(self, latents: Tensor) -> Tensor:
        return ((latents - self.input_shift) * self.input_scale).to(self.device, self.dtype)

    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents / self.input_scale + self.input_shift

    def _decoded(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.model.decode(latents, return_dict=False)[0]
        return pixels.float()

    def _encoded(self, pixels: Tensor) -> Tensor:
        encoded = self.model.encode(pixels)
        latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents.float()

    def _whole(self, images: Tensor) -> Tensor:
        """Cut images to whole latents, and bring them to what the network takes."""
        factor = self.latent.factor
        channels, height, width = images.shape[1:]
        if channels != 3 or min(height, width) < factor:
            raise ExecutionError(
                f"an image of {channels} x {height} x {width} has no latents; give one of 3 channels and at "
                f"least {factor} pixels a side"
            )
        top, left = height % factor // 2, width % factor // 2
        cut = images[:, :, top : top + height // factor * factor, left : left + width // factor * factor]
        return cut.mul(2).sub(1).to(self.device, self.dtype)


def _picture(pixels: Tensor) -> Tensor:
    return pixels.div(2).add(0.5).clamp(0, 1)
