"""The usual autoencoder (KL) in its authors' layout ("decoder.up.0.block.0.conv1.weight"), or in diffusers'."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import count_indices

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")  # a file may hold its training's besides


def kl_config(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Read the configuration of a diffusers AutoencoderKL off its tensors, in either layout.

    Raises:
        ModelFileError: They are not those of one.
    """
    if "decoder.conv_in.weight" not in tensors:
        raise ModelFileError(
            f"{path}: holds no VAE in a layout known here; use one of Stable Diffusion or Flux.1, or a diffusers "
            "folder with its config.json"
        )
    level, block = ("down_blocks", "resnets") if _is_diffusers(tensors) else ("down", "block")
    levels = count_indices(tensors, f"encoder.{level}.")
    check_rgb(path, tensors["encoder.conv_in.weight"].shape[1], tensors["decoder.conv_out.weight"].shape[0])
    return {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [
            tensors[f"encoder.{level}.{k}.{block}.0.conv1.weight"].shape[0] for k in range(levels)
        ],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count_indices(tensors, f"encoder.{level}.0.{block}."),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


def rename_kl(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Bring the tensors to diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(_PARTS)}
    if _is_diffusers(tensors):
        return kept
    renamed: dict[str, Tensor] = convert_ldm_vae_checkpoint(kept, config)
    return renamed


def check_rgb(source: Path, taken: int, given: int) -> None:
    """Raise ModelFileError unless an autoencoder goes from three channels to three."""
    if (taken, given) != (3, 3):
        raise ModelFileError(
            f"{source}: a VAE from {taken} to {given} channels; use one from RGB pictures to RGB pictures"
        )


def _is_diffusers(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("encoder.down_blocks.") for name in tensors)
