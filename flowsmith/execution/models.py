"""What a checkpoint gives: a diffusion model, a text encoder (text.py) and a VAE (vae.py)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.networks import Family, run_network
from flowsmith.execution.patches import NO_PATCHES, Patches
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.residency import Fetch, stay
from flowsmith.execution.sigmas import Table
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.vae import LatentFormat, Vae

__all__ = ["Checkpoint", "DiffusionModel", "LatentFormat", "Vae"]


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A denoising network and how it was trained.

    Attributes:
        key: Names the weights and what is done with their outputs: equal keys, equal results.
        network: A diffusers ``UNet2DConditionModel``, ``SD3Transformer2DModel`` or ``FluxTransformer2DModel``.
        table: Its noise levels.
        prediction: What it predicts.
        latent: The latents that it works on.
        family: How it is called, and whose LoRAs fit.
        patches: What is done beside its weights.
        device: Where it runs.
        dtype: Number type of its weights.
        fetch: Brings it there.
        source: The file that the weights came from, whatever was done to them since.
    """

    key: str
    network: nn.Module
    table: Table
    prediction: Prediction
    latent: LatentFormat
    family: Family = "sd1"
    patches: Patches = NO_PATCHES
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    fetch: Fetch = stay
    source: str = ""

    @property
    def joint_text(self) -> bool:
        """Whether text and picture attend to each other in one sequence.

        A text of other length is another input then; a UNet only reads the text, and reads it the same when it is
        repeated.
        """
        return self.family in ("sd3", "flux")

    def __call__(self, latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        """Run the network on scaled latents [n, c, h, w] under what it is told, row by row."""
        network = self.fetch(self.network)
        return run_network(
            self.family, network, latents, timestep, told.states, told.pooled, told.sizes, told.guidance
        )

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
class Checkpoint:
    """What a checkpoint loader hands on.

    Attributes:
        model: The denoising network.
        text: Its text encoder; None if the file holds none, as is usual for Stable Diffusion 3 and Flux.
        vae: Its autoencoder; None likewise.
    """

    model: DiffusionModel
    text: TextEncoder | None
    vae: Vae | None
