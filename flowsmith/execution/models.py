"""The three things that a checkpoint gives: a diffusion model, a text encoder (text.py) and a VAE."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.patches import NO_PATCHES, Patches
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.sigmas import Table
from flowsmith.execution.text import TextEncoder

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
class DiffusionModel:
    """A UNet and how it was trained.

    Attributes:
        key: Names the weights and what is done with their outputs: equal keys, equal results.
        unet: A diffusers ``UNet2DConditionModel``.
        table: Its noise levels.
        prediction: What it predicts.
        latent: The latents that it works on.
        patches: What is done beside its weights.
        joint_text: Whether text and picture attend to each other in one sequence, so that a text of other length
            is another input; a UNet only reads the text, and reads it the same when it is repeated.
        device: Where it lives.
        dtype: Number type of its weights.
    """

    key: str
    unet: nn.Module
    table: Table
    prediction: Prediction
    latent: LatentFormat
    patches: Patches = NO_PATCHES
    joint_text: bool = False
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def __call__(self, latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        """Run the UNet on scaled latents [n, c, h, w] under what it is told, row by row."""
        output: Tensor = self.unet(latents, timestep, encoder_hidden_states=told.states, return_dict=False)[0]
        return output

    def patched(self, **changes: Any) -> "DiffusionModel":
        """Return the model with some of its `Patches` set; weights stay shared."""
        patches = replace(self.patches, **changes)
        if patches == self.patches:
            return self
        said = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        return replace(self, key=f"{self.key} + {said}", patches=patches)

    def sampled_as(self, said: str, table: Table, prediction: Prediction) -> "DiffusionModel":
        """Return the model with other noise levels or another reading of its output; ``said`` goes into the key."""
        return replace(self, key=f"{self.key} + {said}", table=table, prediction=prediction)


@dataclass(frozen=True, eq=False)
class Vae:
    """An autoencoder between pixels and latents.

    Attributes:
        key: Names the weights.
        model: A diffusers autoencoder.
        latent: The latents that it takes and gives.
        input_scale: The network takes and gives ``latent * input_scale`` (a TAESD inside a checkpoint works
            on scaled ones).
        device: Where it lives.
        dtype: Number type of its weights.
    """

    key: str
    model: Any
    latent: LatentFormat
    input_scale: float = 1.0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents [n, c, h, w] into float32 images [n, 3, h * factor, w * factor] in [0, 1]."""
        pixels = latents.shape[-1] * latents.shape[-2] * self.latent.factor**2
        scaled = (latents * self.input_scale).to(self.device, self.dtype)
        decode = self.model.decode
        parts = torch.split(scaled, max(1, _PIXELS_AT_ONCE // pixels))
        images = torch.cat([decode(part, return_dict=False)[0].float() for part in parts])
        return images.div(2).add(0.5).clamp(0, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Turn images [n, 3, h, w] in [0, 1] into float32 latents [n, c, h // factor, w // factor].

        Pixels beyond the last whole latent are cut off, half of them on either side. Of a distribution of
        latents its mode is taken, so that nothing is random.

        Raises:
            ExecutionError: The images have other channels, or are smaller than one latent.
        """
        factor = self.latent.factor
        channels, height, width = images.shape[1:]
        if channels != 3 or min(height, width) < factor:
            raise ExecutionError(
                f"an image of {channels} x {height} x {width} has no latents; give one of 3 channels and at "
                f"least {factor} pixels a side"
            )
        top, left = height % factor // 2, width % factor // 2
        cut = images[:, :, top : top + height // factor * factor, left : left + width // factor * factor]
        pixels = cut.mul(2).sub(1).to(self.device, self.dtype)
        parts = torch.split(pixels, max(1, _PIXELS_AT_ONCE // pixels[0, 0].numel()))
        return torch.cat([self._latents(part).float() for part in parts]) / self.input_scale

    def _latents(self, pixels: Tensor) -> Tensor:
        encoded = self.model.encode(pixels)
        latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint loader hands on."""

    model: DiffusionModel
    text: TextEncoder
    vae: Vae
