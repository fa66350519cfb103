"""Checkpoints in diffusers' folder layout: unet/ or transformer/, vae/, text_encoder/, tokenizer/, scheduler/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsmith.execution.assemble import clip_network, diffusers_network, t5_network
from flowsmith.execution.dtypes import Dtypes
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.t5 import t5_tower_of
from flowsmith.execution.model_files import read_config, read_json, read_weights
from flowsmith.execution.models import Checkpoint, DiffusionModel
from flowsmith.execution.networks import Family
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.sampling_defaults import flow_table
from flowsmith.execution.sigmas import FlowTable, NoiseTable, Table
from flowsmith.execution.text import TextEncoder, Tower
from flowsmith.execution.text_chunks import Framing
from flowsmith.execution.text_uses import USES, join_of
from flowsmith.execution.tokenizers import clip_tokenizer_of
from flowsmith.execution.vae import LatentFormat
from flowsmith.execution.vae_files import folder_vae

_CLIPS = ("CLIPTextModel", "CLIPTextModelWithProjection")
_TEXTS: dict[Family, dict[str, str]] = {
    "sd1": {"l": ""},
    "sd2": {"h": ""},
    "sdxl": {"l": "", "g": "_2"},
    "sdxl_refiner": {"g": "_2"},
    "sd3": {"l": "", "g": "_2", "t5xxl": "_3"},
    "flux": {"l": "", "t5xxl": "_2"},
}
"""What follows "text_encoder" and "tokenizer" in the folders' names."""


def read_folder(folder: Path, key: str, dtypes: Dtypes | None = None) -> Checkpoint:
    """Load a checkpoint of Stable Diffusion 1, 2, XL, 3 or Flux.1 from a folder.

    Args:
        folder: Holds the parts named above; ``scheduler/`` may lack, then it is the family's usual one. Of Stable
            Diffusion 3 text encoders may lack.
        key: Becomes the key of each part.
        dtypes: Number types; float32 by default.

    Raises:
        ModelFileError: A part is missing, broken, or of a kind that cannot be run here.
    """
    dtypes = dtypes or Dtypes()
    family, config = _family(folder)
    towers = {
        name: _tower(folder, suffix, name, family, dtypes)
        for name, suffix in _TEXTS[family].items()
        if family != "sd3" or (folder / f"text_encoder{suffix}").is_dir()
    }
    vae = folder_vae(folder / "vae", key, dtype=dtypes.vae)
    model = _model(folder, key, family, config, vae.latent, dtypes)
    text = TextEncoder(key, towers, join_of(family, towers, model.network), key) if towers else None
    return Checkpoint(model, text, vae)


def _family(folder: Path) -> tuple[Family, dict[str, Any]]:
    """Tell the family by the configuration of the denoising network; give that too."""
    if (folder / "transformer").is_dir():
        config = read_config(folder / "transformer", ("FluxTransformer2DModel", "SD3Transformer2DModel"))
        _check_inputs(folder, config)
        return ("sd3" if config.get("_class_name") == "SD3Transformer2DModel" else "flux"), config
    config = read_config(folder / "unet", ("UNet2DConditionModel",))
    _check_inputs(folder, config)
    if config.get("addition_embed_type") == "text_time":
        return ("sdxl" if (folder / "text_encoder").is_dir() else "sdxl_refiner"), config
    return ("sd2" if config.get("use_linear_projection") else "sd1"), config


def _check_inputs(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse networks that are told more than noisy latents and a text."""
    taken = config.get("in_channels")
    given = config.get("out_channels") or taken
    if taken != given or config.get("class_embed_type") or config.get("encoder_hid_dim_type"):
        raise ModelFileError(
            f"{folder}: is for inpainting, control or pictures to start from (it takes {taken} channels and gives "
            f"{given}); use one that makes pictures from text"
        )


def _model(
    folder: Path, key: str, family: Family, config: dict[str, Any], latent: LatentFormat, dtypes: Dtypes
) -> DiffusionModel:
    import diffusers

    place = folder / ("transformer" if family in ("sd3", "flux") else "unet")
    table, prediction = _noise(folder / "scheduler" / "scheduler_config.json", family, config)
    kinds: dict[str, type] = {
        "sd3": diffusers.SD3Transformer2DModel,
        "flux": diffusers.FluxTransformer2DModel,
    }
    kind = kinds.get(family, diffusers.UNet2DConditionModel)
    network = diffusers_network(kind, config, read_weights(place), place, dtypes.network)
    return DiffusionModel(
        key, network, table, prediction, latent, family=family, dtype=dtypes.network, source=key
    )


def _tower(folder: Path, suffix: str, name: str, family: Family, dtypes: Dtypes) -> Tower:
    place, words = folder / f"text_encoder{suffix}", folder / f"tokenizer{suffix}"
    use = USES[family]
    if name == "t5xxl":
        config = read_config(place, ("T5EncoderModel",))
        network = t5_network(config, read_weights(place), place, dtypes.t5)
        return t5_tower_of(network, str(words), use.t5_length)
    config = read_config(place, _CLIPS)
    network = clip_network(config, read_weights(place), place, dtypes.clip)
    tokens = clip_tokenizer_of(words)
    length = min(config.get("max_position_embeddings", 77), tokens.model_max_length)
    framing = Framing(tokens.eos_token_id, tokens.pad_token_id, length, tokens.bos_token_id)
    # Of Stable Diffusion 2 the folder's network is without the layer that its authors' file has and does not use.
    layer = None if family == "sd2" else use.layer
    return Tower(network, tokens, framing, layer, use.normed)


def _noise(file: Path, family: Family, network: Mapping[str, Any]) -> tuple[Table, Prediction]:
    """Read how the network was trained; sampler and scheduler are a flow's to choose."""
    config = read_json(file) if file.exists() else {}
    if family == "flux":
        return flow_table(family, bool(network.get("guidance_embeds"))), "flow"
    if family == "sd3":
        return (FlowTable.from_shift(config["shift"]) if "shift" in config else flow_table(family)), "flow"
    schedule = config.get("beta_schedule", "scaled_linear")
    prediction = config.get("prediction_type", "epsilon")
    if schedule not in ("scaled_linear", "linear"):
        raise ModelFileError(f"{file}: beta_schedule={schedule!r} cannot be run; use scaled_linear or linear")
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
    if config.get("rescale_betas_zero_snr"):
        table = table.without_signal_at_the_end()
    return table, prediction
