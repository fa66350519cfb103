"""What a checkpoint gives: a diffusion model, a text encoder (text.py) and a VAE (vae.py)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flowsmith.execution.denoiser import Prediction
from flowsmith.execution.flow_table import FlowTable
from flowsmith.execution.networks import Family, run_network
from flowsmith.execution.residency import Fetch, stay
from flowsmith.execution.sigmas import NoiseTable
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
        rescale: Share of its own contrast that a guided guess gets back; see `Denoiser`.
        device: Where it runs.
        dtype: Number type of its weights.
        fetch: Brings it there.
        source: The file that the weights came from, whatever was done to them since.
    """

    key: str
    network: nn.Module
    table: NoiseTable | FlowTable
    prediction: Prediction
    latent: LatentFormat
    family: Family = "sd1"
    rescale: float = 0.0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    fetch: Fetch = stay
    source: str = ""

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Run the network; see `networks.run_network`."""
        network = self.fetch(self.network)
        return run_network(self.family, network, latents, timestep, text, pooled, sizes, guidance)

    def rescaled(self, share: float) -> "DiffusionModel":
        """Return the model with its guided guesses rescaled; an earlier rescaling is replaced."""
        if share == self.rescale:
            return self
        return replace(self, key=f"{self.key} + RescaleCFG * {share!r}", rescale=share)


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
