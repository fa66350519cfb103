"""Which family of diffusion models tensors belong to, told by their names and shapes."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import count_indices
from flowsmith.execution.networks import NAMES, Family

# A name that only one family has, in the order in which they are asked: a later one may be of several.
_OTHERS: tuple[tuple[str, str], ...] = (
    ("distilled_guidance_layer.", "Chroma"),
    ("single_stream_modulation.", "Flux.2"),
    ("double_stream_modulation_img.", "Flux.2"),
    ("txt_in.individual_token_refiner.", "HunyuanVideo"),
    ("txtfusion.", "Krea 2"),
    ("double_layers.", "AuraFlow"),
    ("cap_embedder.", "Lumina 2 or Z-Image"),
    ("txt_norm.", "Qwen-Image"),
    ("text_norm.", "Qwen-Image"),
    ("clip_txt_mapper.", "Stable Cascade"),
    ("clip_txt_pooled_mapper.", "Stable Cascade"),
    ("down_blocks.1.0.channelwise.", "Stable Cascade"),
    ("mlp_t5.", "HunyuanDiT"),
    ("y_embedder.y_embedding", "PixArt"),
    ("double_stream_blocks.", "HiDream"),
    ("patchify_proj.", "LTX-Video"),
    ("blocks.0.attn.qkv_x.", "Mochi"),
    ("head.modulation", "Wan"),
    ("input_blocks.1.1.time_stack.", "Stable Video Diffusion"),
    ("down_blocks.0.motion_modules.", "AnimateDiff"),
    ("label_emb.weight", "Stable Diffusion's upscaler"),
    ("edm_mean", "Playground 2.5"),
)
_SUPPORTED = f"{', '.join(NAMES.values())}, in their authors' layout"


def detect_family(tensors: Mapping[str, Tensor], source: Path) -> Family:
    """Tell the family of a diffusion model.

    Args:
        tensors: The model's, without prefix, in its authors' layout, with marks that lie beside it in the file.
        source: Named in errors.

    Raises:
        ModelFileError: It is of none that can be run here; names the family if it is known.
    """
    if "double_blocks.0.img_attn.norm.key_norm.scale" in tensors:
        family: Family | None = "flux"
    elif "joint_blocks.0.context_block.attn.qkv.weight" in tensors:
        family = "sd3"
    else:
        family = _unet_family(tensors, source)
    other = next((name for mark, name in _OTHERS if any(key.startswith(mark) for key in tensors)), None)
    if other or family is None:
        told = (
            f"is a model of the family {other}"
            if other
            else "holds no diffusion model in a layout known here"
        )
        raise ModelFileError(f"{source}: {told}, which cannot be run; use one of {_SUPPORTED}")
    _check_channels(tensors, family, source)
    return family


def _unet_family(tensors: Mapping[str, Tensor], source: Path) -> Family | None:
    projection = tensors.get("middle_block.1.proj_in.weight")
    if "input_blocks.0.0.weight" not in tensors or projection is None:
        return None
    # SDXL has no transformers where the picture is largest, its refiner none where it is smallest either.
    outer = any(name.startswith("input_blocks.1.1.transformer_blocks.") for name in tensors)
    if "label_emb.0.0.weight" not in tensors:
        return "sd1" if projection.dim() == 4 else "sd2"
    if outer:
        raise ModelFileError(
            f"{source}: is a model of the family Stable Diffusion 2 unCLIP, which is told a picture and cannot be "
            f"run; use one of {_SUPPORTED}"
        )
    last = count_indices(tensors, "input_blocks.") - 1
    inner = any(name.startswith(f"input_blocks.{last}.1.transformer_blocks.") for name in tensors)
    return "sdxl" if inner else "sdxl_refiner"


def _check_channels(tensors: Mapping[str, Tensor], family: Family, source: Path) -> None:
    """Refuse models that are told more than noisy latents: a mask, a picture to edit, depth."""
    if family == "flux":
        taken, given = tensors["img_in.weight"].shape[1], tensors["final_layer.linear.weight"].shape[0]
    elif family == "sd3":
        return
    else:
        taken, given = tensors["input_blocks.0.0.weight"].shape[1], tensors["out.2.weight"].shape[0]
    if taken != given:
        raise ModelFileError(
            f"{source}: is a {NAMES[family]} for inpainting or control, which takes {taken} channels and gives "
            f"{given}; use one that makes pictures from text"
        )
