"""Checkpoints in diffusers' folder layout: unet/, vae/, text_encoder/, tokenizer/, scheduler/."""

from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.assemble import diffusers_network, text_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import read_json, read_tensors
from flowsmith.execution.models import Checkpoint, DiffusionModel, LatentFormat, Vae
from flowsmith.execution.sigmas import NoiseTable
from flowsmith.execution.text import TextEncoder

_KINDS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
}


def read_folder(folder: Path, key: str) -> Checkpoint:
    """Load a Stable Diffusion checkpoint from a folder.

    Args:
        folder: Holds the parts named above; ``scheduler/`` may lack, then it is Stable Diffusion's.
        key: Becomes the key of each part.

    Raises:
        ModelFileError: A part is missing, broken, or of a kind that cannot be run here.
    """
    import diffusers

    configs = {part: _config(folder / part, kinds) for part, kinds in _KINDS.items()}
    weights = {part: _weights(folder / part) for part in _KINDS}
    latent = _latent_format(configs["vae"])
    table, prediction = _noise(folder / "scheduler" / "scheduler_config.json")
    unet = diffusers_network(
        diffusers.UNet2DConditionModel, configs["unet"], weights["unet"], folder / "unet"
    )
    vae_kind = getattr(diffusers, configs["vae"].get("_class_name", "AutoencoderKL"))
    vae = diffusers_network(vae_kind, configs["vae"], weights["vae"], folder / "vae")
    text = text_network(configs["text_encoder"], weights["text_encoder"], folder / "text_encoder")
    tokenizer = _tokenizer(folder / "tokenizer")
    length = min(configs["text_encoder"].get("max_position_embeddings", 77), tokenizer.model_max_length)
    return Checkpoint(
        DiffusionModel(key, unet, table, prediction, latent),
        TextEncoder(key, text, tokenizer, length),
        Vae(key, vae, latent),
    )


def _config(folder: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    kind = config.get("_class_name") or (config.get("architectures") or [kinds[0]])[0]
    if kind not in kinds:
        raise ModelFileError(f"{folder}: is a {kind}, which cannot be run here; use a {' or '.join(kinds)}")
    return config


def _weights(folder: Path) -> dict[str, Tensor]:
    """Read one file or all shards; a half-precision twin beside the full one is passed over."""
    files = sorted(folder.glob("*.safetensors"))
    full = [file for file in files if ".fp16." not in file.name]
    if not files:
        raise ModelFileError(f"{folder}: holds no .safetensors file; save the model with safe_serialization")
    tensors: dict[str, Tensor] = {}
    for file in full or files:
        tensors.update(read_tensors(file))
    return tensors


def _latent_format(vae: dict[str, Any]) -> LatentFormat:
    levels = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or (64,) * 4
    scale = vae.get("scaling_factor", 1.0 if vae.get("_class_name") == "AutoencoderTiny" else 0.18215)
    return LatentFormat(
        vae.get("latent_channels", 4), 2 ** (len(levels) - 1), scale, vae.get("shift_factor") or 0.0
    )


def _noise(file: Path) -> tuple[NoiseTable, Any]:
    """Read how the network was trained; sampler and scheduler are a flow's to choose."""
    config = read_json(file) if file.exists() else {}
    schedule = config.get("beta_schedule", "scaled_linear")
    prediction = config.get("prediction_type", "epsilon")
    if schedule not in ("scaled_linear", "linear") or config.get("rescale_betas_zero_snr"):
        raise ModelFileError(
            f"{file}: beta_schedule={schedule!r} or rescaled betas cannot be run; use scaled_linear"
        )
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelFileError(
            f"{file}: prediction_type={prediction!r} cannot be run; use epsilon or v_prediction"
        )
    table = NoiseTable.from_betas(
        config.get("beta_start", 0.00085),
        config.get("beta_end", 0.012),
        config.get("num_train_timesteps", 1000),
        schedule,
    )
    return table, prediction


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds for one cause
        raise ModelFileError(f"{folder}: no readable CLIP tokenizer ({error}); save one there") from error
