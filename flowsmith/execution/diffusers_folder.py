"""Checkpoints in diffusers' folder layout: unet/, vae/, text_encoder/, tokenizer/, scheduler/."""

from pathlib import Path
from typing import Any

from flowsmith.execution.assemble import diffusers_network, text_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import read_config, read_json, read_weights
from flowsmith.execution.models import Checkpoint, DiffusionModel
from flowsmith.execution.sigmas import NoiseTable
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.vae_files import folder_vae


def read_folder(folder: Path, key: str) -> Checkpoint:
    """Load a Stable Diffusion checkpoint from a folder.

    Args:
        folder: Holds the parts named above; ``scheduler/`` may lack, then it is Stable Diffusion's.
        key: Becomes the key of each part.

    Raises:
        ModelFileError: A part is missing, broken, or of a kind that cannot be run here.
    """
    import diffusers

    config = read_config(folder / "unet", ("UNet2DConditionModel",))
    text_config = read_config(folder / "text_encoder", ("CLIPTextModel",))
    vae = folder_vae(folder / "vae", key)
    table, prediction = _noise(folder / "scheduler" / "scheduler_config.json")
    weights = read_weights(folder / "unet")
    unet = diffusers_network(diffusers.UNet2DConditionModel, config, weights, folder / "unet")
    text_folder = folder / "text_encoder"
    text = text_network(text_config, read_weights(text_folder), text_folder)
    tokenizer = _tokenizer(folder / "tokenizer")
    length = min(text_config.get("max_position_embeddings", 77), tokenizer.model_max_length)
    return Checkpoint(
        DiffusionModel(key, unet, table, prediction, vae.latent),
        TextEncoder(key, text, tokenizer, length),
        vae,
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
