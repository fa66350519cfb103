"""A diffusion model with its patches, as the denoiser runs it."""

from contextlib import nullcontext

from torch import Tensor

from flowsmith.execution.condition_batch import Network, NetworkForm
from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.unet_patches import freeu, perturbed_attention


def form_of(model: DiffusionModel) -> NetworkForm:
    """Return what a batch must know of a model."""
    return NetworkForm(model.table, model.latent.factor, model.joint_text, model.device, model.dtype)


def network_of(model: DiffusionModel, blunted: bool = False) -> Network:
    """Return a model with what is changed inside it; ``blunted`` also perturbs its attention."""
    settings = model.patches.freeu
    if settings is None and not blunted:
        return model

    def run(latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        inner = freeu(model.network, settings) if settings else nullcontext()
        with inner, perturbed_attention(model.network) if blunted else nullcontext():
            return model(latents, timestep, told)

    return run
