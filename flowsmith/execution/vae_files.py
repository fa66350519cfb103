"""Autoencoders: diffusers folders, files of their own, and those within a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from flowsmith.execution.assemble import diffusers_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.kl_vae import check_rgb, kl_config, rename_kl
from flowsmith.execution.layouts.taesd import SCALES, is_taesd, rename_taesd
from flowsmith.execution.model_files import read_config, read_tensors, read_weights, under
from flowsmith.execution.vae import LatentFormat, Vae

VAE_PREFIX = "first_stage_model."
"""Of a VAE's tensors within a checkpoint."""

_SCALE = 0.18215  # of the latents of Stable Diffusion 1 and 2


def read_vae(path: Path, key: str, dtype: torch.dtype = torch.float32) -> Vae:
    """Load an autoencoder that is no part of a checkpoint.

    Its scale is of no account: latents travel unscaled, and the diffusion model brings its own.

    Args:
        path: A diffusers folder of an AutoencoderKL, or a file in its authors' layout (with or without the prefix
            that it has in checkpoints) or in diffusers'.
        key: Names the weights.
        dtype: Number type of the weights.

    Raises:
        ModelFileError: It is broken, incomplete or of another kind.
    """
    if path.is_dir():
        return folder_vae(path, key, ("AutoencoderKL",), dtype)
    tensors = read_tensors(path)
    return tensors_vae(under(VAE_PREFIX, tensors) or tensors, key, path, dtype)


def read_taesd(encoder: Path, decoder: Path, key: str, name: str, dtype: torch.dtype = torch.float32) -> Vae:
    """Load a tiny autoencoder from its two files.

    Args:
        encoder: One half.
        decoder: The other.
        key: Names the weights.
        name: Which one, of `SCALES`.
        dtype: Number type of the weights.

    Raises:
        ModelFileError: A file is broken or of another kind.
    """
    scale, shift = SCALES[name]
    tensors = {f"taesd_encoder.{part}": tensor for part, tensor in read_tensors(encoder).items()}
    tensors |= {f"taesd_decoder.{part}": tensor for part, tensor in read_tensors(decoder).items()}
    marks = {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}
    return tensors_vae(tensors | marks, key, decoder, dtype)


def folder_vae(
    folder: Path,
    key: str,
    kinds: tuple[str, ...] = ("AutoencoderKL", "AutoencoderTiny"),
    dtype: torch.dtype = torch.float32,
) -> Vae:
    """Load an autoencoder from a diffusers folder; see `read_vae`."""
    import diffusers

    config = read_config(folder, kinds)
    kind = getattr(diffusers, config.get("_class_name", kinds[0]))
    channels = config.get("in_channels", 3), config.get("out_channels", 3)
    check_rgb(folder, *channels)
    levels = config.get("block_out_channels") or config.get("decoder_block_out_channels") or (64,) * 4
    scale = config.get("scaling_factor", 1.0 if kind is diffusers.AutoencoderTiny else _SCALE)
    shift = config.get("shift_factor") or 0.0
    latent = LatentFormat(config.get("latent_channels", 4), 2 ** (len(levels) - 1), scale, shift)
    network = diffusers_network(kind, config, read_weights(folder), folder, dtype)
    return Vae(key, network, latent, dtype=dtype)


def tensors_vae(
    tensors: Mapping[str, Tensor], key: str, path: Path, dtype: torch.dtype = torch.float32
) -> Vae:
    """Build an autoencoder, the usual one or a TAESD, from its tensors; see `read_vae`."""
    try:
        return (_taesd if is_taesd(tensors) else _usual)(tensors, key, path, dtype)
    except KeyError as error:
        raise ModelFileError(f"{path}: the VAE lacks {error.args[0]}; use a whole file") from error


def _taesd(tensors: Mapping[str, Tensor], key: str, path: Path, dtype: torch.dtype) -> Vae:
    import diffusers

    channels = tensors["taesd_decoder.1.weight"].shape[1]
    config = {"latent_channels": channels}
    network = diffusers_network(diffusers.AutoencoderTiny, config, rename_taesd(tensors), path, dtype)
    scale, shift = (
        float(tensors.get(f"vae_{name}", value)) for name, value in (("scale", 1.0), ("shift", 0.0))
    )
    return Vae(key, network, LatentFormat(channels, 8, scale, shift), scale, shift, dtype=dtype)


def _usual(tensors: Mapping[str, Tensor], key: str, path: Path, dtype: torch.dtype) -> Vae:
    import diffusers

    config = kl_config(tensors, path)
    latent = LatentFormat(config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1), _SCALE)
    network = diffusers_network(diffusers.AutoencoderKL, config, rename_kl(tensors, config), path, dtype)
    return Vae(key, network, latent, dtype=dtype)
