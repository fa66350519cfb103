"""Autoencoders: a diffusers folder, or tensors in the original layout, alone or within a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.assemble import diffusers_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import count_indices, read_config, read_tensors, read_weights, under
from flowsmith.execution.models import LatentFormat, Vae

VAE_PREFIX = "first_stage_model."
"""Of a VAE's tensors within a checkpoint."""

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")  # a file may hold its training's besides
_SCALE = 0.18215  # of the latents of Stable Diffusion 1 and 2


def read_vae(path: Path, key: str) -> Vae:
    """Load an autoencoder that is no part of a checkpoint.

    Its scale is of no account: latents travel unscaled, and the diffusion model brings its own.

    Args:
        path: A diffusers folder of an AutoencoderKL, or a safetensors file in the original layout (with or
            without the prefix that it has in checkpoints).
        key: Names the weights.

    Raises:
        ModelFileError: It is broken, incomplete or of another kind.
    """
    if path.is_dir():
        return folder_vae(path, key, ("AutoencoderKL",))
    tensors = read_tensors(path)
    return tensors_vae(under(VAE_PREFIX, tensors) or tensors, key, path)


def folder_vae(folder: Path, key: str, kinds: tuple[str, ...] = ("AutoencoderKL", "AutoencoderTiny")) -> Vae:
    """Load an autoencoder from a diffusers folder; see `read_vae`."""
    import diffusers

    config = read_config(folder, kinds)
    kind = getattr(diffusers, config.get("_class_name", kinds[0]))
    channels = config.get("in_channels", 3), config.get("out_channels", 3)
    _check_rgb(folder, *channels)
    levels = config.get("block_out_channels") or config.get("decoder_block_out_channels") or (64,) * 4
    scale = config.get("scaling_factor", 1.0 if kind is diffusers.AutoencoderTiny else _SCALE)
    shift = config.get("shift_factor") or 0.0
    latent = LatentFormat(config.get("latent_channels", 4), 2 ** (len(levels) - 1), scale, shift)
    return Vae(key, diffusers_network(kind, config, read_weights(folder), folder), latent)


def tensors_vae(tensors: Mapping[str, Tensor], key: str, path: Path) -> Vae:
    """Build an autoencoder, the usual one or a TAESD, from tensors in the original layout; see `read_vae`."""
    try:
        taesd = any(name.startswith("taesd_decoder.") for name in tensors)
        return _taesd(tensors, key, path) if taesd else _usual(tensors, key, path)
    except KeyError as error:
        raise ModelFileError(f"{path}: the VAE lacks {error.args[0]}; use a whole file") from error


def _taesd(tensors: Mapping[str, Tensor], key: str, path: Path) -> Vae:
    import diffusers

    latent = LatentFormat(tensors["taesd_decoder.1.weight"].shape[1], 8, _SCALE)
    network = diffusers_network(diffusers.AutoencoderTiny, {}, rename_taesd(tensors), path)
    return Vae(key, network, latent, float(tensors.get("vae_scale", 1.0)))


def _usual(tensors: Mapping[str, Tensor], key: str, path: Path) -> Vae:
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = vae_config(tensors, path)
    latent = LatentFormat(config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1), _SCALE)
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(_PARTS)}
    renamed = convert_ldm_vae_checkpoint(kept, config)
    return Vae(key, diffusers_network(diffusers.AutoencoderKL, config, renamed, path), latent)


def vae_config(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Read the autoencoder's shape off its tensors."""
    if "decoder.conv_in.weight" not in tensors:
        raise ModelFileError(
            f"{path}: holds no VAE in Stable Diffusion's layout; use a file that does, or a diffusers folder "
            "with its config.json"
        )
    levels = count_indices(tensors, "encoder.down.")
    _check_rgb(path, tensors["encoder.conv_in.weight"].shape[1], tensors["decoder.conv_out.weight"].shape[0])
    return {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [
            tensors[f"encoder.down.{k}.block.0.conv1.weight"].shape[0] for k in range(levels)
        ],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count_indices(tensors, "encoder.down.0.block."),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32,
        "scaling_factor": _SCALE,
    }


def rename_taesd(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a TAESD's tensors to diffusers' AutoencoderTiny, whose decoder has no first clamping layer."""
    renamed = {}
    for name, tensor in tensors.items():
        half, _, rest = name.partition(".")
        if half not in ("taesd_encoder", "taesd_decoder"):
            continue
        layer, _, rest = rest.partition(".")
        index = int(layer) - (half == "taesd_decoder")
        renamed[f"{half.removeprefix('taesd_')}.layers.{index}.{rest}"] = tensor
    return renamed


def _check_rgb(source: Path, taken: int, given: int) -> None:
    if (taken, given) != (3, 3):
        raise ModelFileError(
            f"{source}: a VAE from {taken} to {given} channels; use one from RGB pictures to RGB pictures"
        )
