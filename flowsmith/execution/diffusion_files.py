"""A denoising network from tensors in its authors' layout, alone or within a checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flowsmith.execution.assemble import diffusers_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.family import detect_family
from flowsmith.execution.layouts.flux import flux_config, rename_flux
from flowsmith.execution.layouts.mmdit import mmdit_config, rename_mmdit
from flowsmith.execution.layouts.unet import predicts_v, rename_unet, unet_config
from flowsmith.execution.model_files import read_tensors, under
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.networks import Family
from flowsmith.execution.sampling_defaults import LATENTS, flow_table
from flowsmith.execution.sigmas import NoiseTable

PREFIX = "model.diffusion_model."
"""Of a denoising network's tensors within a checkpoint."""

_MARKS = ("v_pred", "ztsnr", "edm_mean", "edm_std")  # empty tensors that say how an SDXL was trained


def read_diffusion_model(path: Path, key: str, dtype: torch.dtype = torch.float32) -> DiffusionModel:
    """Load a denoising network that is no part of a checkpoint; the prefix that it has in one may be there.

    Raises:
        ModelFileError: It is broken, or of a family that cannot be run here; names the family.
    """
    return tensors_diffusion_model(read_tensors(path), key, path, dtype)


def tensors_diffusion_model(
    tensors: Mapping[str, Tensor], key: str, path: Path, dtype: torch.dtype = torch.float32
) -> DiffusionModel:
    """Build a denoising network from the tensors of a file, others among them; see `read_diffusion_model`."""
    own = under(PREFIX, tensors) or dict(tensors)
    marks = {name: tensors[name] for name in _MARKS if name in tensors}
    own = {name: tensor for name, tensor in own.items() if name not in _MARKS}
    try:
        family = detect_family({**own, **marks}, path)
        return _built(family, own, marks, key, path, dtype)
    except KeyError as error:
        raise ModelFileError(
            f"{path}: the diffusion model lacks {error.args[0]}; use a whole file"
        ) from error


def _built(
    family: Family,
    tensors: Mapping[str, Tensor],
    marks: Mapping[str, Tensor],
    key: str,
    path: Path,
    dtype: torch.dtype,
) -> DiffusionModel:
    import diffusers

    latent = LATENTS[family]
    if family == "flux":
        config = flux_config(tensors, path)
        network = diffusers_network(
            diffusers.FluxTransformer2DModel, config, rename_flux(tensors), path, dtype
        )
        table = flow_table(family, distilled=bool(config["guidance_embeds"]))
        channels = config["in_channels"] // 4  # a token is two latents wide and high
    elif family == "sd3":
        config = mmdit_config(tensors)
        network = diffusers_network(
            diffusers.SD3Transformer2DModel, config, rename_mmdit(tensors), path, dtype
        )
        table, channels = flow_table(family), config["in_channels"]
    else:
        config = unet_config(tensors, path)
        network = diffusers_network(
            diffusers.UNet2DConditionModel, config, rename_unet(tensors, config), path, dtype
        )
        v = predicts_v({**tensors, **marks}, family == "sd2")
        noise = NoiseTable.from_betas()
        if "ztsnr" in marks:
            noise = noise.without_signal_at_the_end()
        return DiffusionModel(
            key,
            network,
            noise,
            "v_prediction" if v else "epsilon",
            replace(latent, channels=config["in_channels"]),
            family=family,
            dtype=dtype,
            source=key,
        )
    return DiffusionModel(
        key,
        network,
        table,
        "flow",
        replace(latent, channels=channels),
        family=family,
        dtype=dtype,
        source=key,
    )
