"""A denoising network from tensors in its authors' layout, alone or within a checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.sampling_defaults import LATENTS, flow_table
from flowsmith.execution.sigmas import NoiseTable, Table

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
        kind, config, renamed = _layout(family, own, path)
    except KeyError as error:
        raise ModelFileError(
            f"{path}: the diffusion model lacks {error.args[0]}; use a whole file"
        ) from error
    network = diffusers_network(kind, config, renamed, path, dtype)
    table, prediction = _training(family, {**own, **marks}, config)
    channels = config["in_channels"] // (
        4 if family == "flux" else 1
    )  # its token is two latents wide and high
    latent = replace(LATENTS[family], channels=channels)
    return DiffusionModel(key, network, table, prediction, latent, family=family, dtype=dtype, source=key)


def _layout(
    family: Family, tensors: Mapping[str, Tensor], path: Path
) -> tuple[type, dict[str, Any], dict[str, Tensor]]:
    """Return diffusers' class, its configuration and tensors in its names."""
    import diffusers

    if family == "flux":
        return diffusers.FluxTransformer2DModel, flux_config(tensors, path), rename_flux(tensors)
    if family == "sd3":
        return diffusers.SD3Transformer2DModel, mmdit_config(tensors), rename_mmdit(tensors)
    config = unet_config(tensors, path)
    return diffusers.UNet2DConditionModel, config, rename_unet(tensors, config)


def _training(
    family: Family, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[Table, Prediction]:
    """Return noise levels and prediction, as far as the file tells; else the family's."""
    if family in ("sd3", "flux"):
        return flow_table(family, distilled=bool(config.get("guidance_embeds"))), "flow"
    table = NoiseTable.from_betas()
    if "ztsnr" in tensors:
        table = table.without_signal_at_the_end()
    return table, "v_prediction" if predicts_v(tensors, family == "sd2") else "epsilon"
