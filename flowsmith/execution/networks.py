"""One call of a denoising network, family by family: what it is told, and in which shape."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsmith.execution.errors import ExecutionError

Family: TypeAlias = Literal["sd1", "sd2", "sdxl", "sdxl_refiner", "sd3", "flux"]

NAMES: dict[Family, str] = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "SDXL",
    "sdxl_refiner": "SDXL refiner",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux.1",
}

_SIZES: dict[Family, tuple[int, ...]] = {"sdxl": (0, 1, 2, 3, 4, 5), "sdxl_refiner": (0, 1, 2, 3, 6)}
"""Which of the seven numbers of `NetworkConditions.sizes` a family is told; the other families are told none."""

_THOUSAND = 1000.0  # diffusers takes Flux's timestep in ones
_PATCH = 2  # latents a side that a transformer sees as one


def run_network(
    family: Family,
    network: nn.Module,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
    pooled: Tensor | None = None,
    sizes: Tensor | None = None,
    guidance: Tensor | None = None,
) -> Tensor:
    """Run a network on scaled latents.

    Args:
        family: What kind of network it is.
        network: diffusers' UNet2DConditionModel, SD3Transformer2DModel or FluxTransformer2DModel.
        latents: [n, c, h, w].
        timestep: One number of its table; of a flow in thousandths.
        text: States [n, tokens, width].
        pooled: [n, width]; SDXL, SD3 and Flux want it.
        sizes: float32 [n, 7], see `NetworkConditions`; SDXL wants it.
        guidance: float32 [n]; a distilled Flux wants it.

    Returns:
        The prediction [n, c, h, w].

    Raises:
        ExecutionError: Something that the family wants is missing.
    """
    if family not in ("sd1", "sd2") and pooled is None:
        raise ExecutionError(
            f"{NAMES[family]} wants a pooled text state, which this CONDITIONING lacks; encode the text with "
            "the text encoders of its family"
        )
    if family == "flux":
        return _flux(network, latents, timestep, text, pooled, guidance)
    if family == "sd3":
        return _sd3(network, latents, timestep, text, pooled)
    told = {}
    if family in _SIZES and sizes is not None:
        told = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes[:, _SIZES[family]]}}
    output: Tensor = network(latents, timestep, encoder_hidden_states=text, return_dict=False, **told)[0]
    return output


def _sd3(
    network: nn.Module, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor | None
) -> Tensor:
    def run(padded: Tensor) -> Tensor:
        output: Tensor = network(
            padded,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=timestep.expand(len(padded)),
            return_dict=False,
        )[0]
        return output

    return _in_patches(latents, run)


def _flux(
    network: nn.Module,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
    pooled: Tensor | None,
    guidance: Tensor | None,
) -> Tensor:
    distilled = bool(network.config.guidance_embeds)  # type: ignore[union-attr]

    def run(padded: Tensor) -> Tensor:
        height, width = padded.shape[-2] // _PATCH, padded.shape[-1] // _PATCH
        output: Tensor = network(
            hidden_states=F.pixel_unshuffle(padded, _PATCH).flatten(2).transpose(1, 2),
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=timestep.expand(len(padded)) / _THOUSAND,
            img_ids=_places(height, width, padded.device),
            txt_ids=torch.zeros(text.shape[1], 3, device=padded.device),
            guidance=guidance if distilled else None,
            return_dict=False,
        )[0]
        return F.pixel_shuffle(output.transpose(1, 2).unflatten(2, (height, width)), _PATCH)

    return _in_patches(latents, run)


def _in_patches(latents: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Run on latents filled up to whole patches from their other side, and cut the filling off again."""
    height, width = latents.shape[-2:]
    if height % _PATCH or width % _PATCH:
        latents = F.pad(latents, (0, width % _PATCH, 0, height % _PATCH), mode="circular")
    return run(latents)[..., :height, :width]


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Return of each patch [0, row, column], row by row."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float()
