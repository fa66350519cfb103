"""Families of models: a LoRA, or another checkpoint, fits where the family is the same and nowhere else.

Told by what a file holds: the width of the text that a U-Net attends to, or tensors that one architecture alone
has. What is not told for sure has no family, and what has none is put nowhere.
"""

import re
from collections.abc import Mapping

from flowsmith.flows.building.headers import Header

_UNET = re.compile(r"(input|output|middle|down|up|mid)_blocks?[._]")
_ATTENDS = re.compile(r"attn2[._]to_[kv]\b|attn2_to_[kv]\b")
_INWARD = ("to_k.weight", "to_v.weight", "lora_down.weight", "lora_A.weight", "lora.down.weight", "hada_w1_b")
_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl_refiner"}
_FIRST_LAYERS = ("input_blocks.0.0.weight", "conv_in.weight")
_INPAINTING = 9  # channels: the picture, its mask, and what is behind the mask

# Pieces of tensors' names that together stand in one architecture alone; what is special stands first.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("svd", ("time_stack",)),
    ("kolors", ("encoder_hid_proj",)),
    ("chroma", ("distilled_guidance_layer",)),
    ("hunyuan_video", ("individual_token_refiner",)),
    ("flux2", ("double_stream_modulation_img",)),
    ("flux2", ("to_qkv_mlp_proj",)),
    ("flux1", ("double_blocks", "img_attn")),
    ("flux1", ("single_transformer_blocks",)),
    ("sd3", ("joint_blocks",)),
    ("qwen_image", ("transformer_blocks", "img_mlp")),
)
_ARCHITECTURES = (
    ("stable-diffusion-xl-v1-refiner", "sdxl_refiner"), ("stable-diffusion-xl", "sdxl"),
    ("stable-diffusion-v1", "sd1"), ("stable-diffusion-v2", "sd2"), ("stable-diffusion-v3", "sd3"),
    ("stable-diffusion-3", "sd3"), ("flux-1", "flux1"), ("flux.1", "flux1"),
    ("sdxl_base", "sdxl"), ("sd_v1", "sd1"), ("sd_1.5", "sd1"), ("sd_v2", "sd2"), ("sd3", "sd3"), ("flux1", "flux1"),
)  # fmt: skip
# Names under which base models are published, for files of other people's workflows.
_PUBLISHED = (
    (r"sd_?xl.*refiner", "sdxl_refiner"), (r"sd_?xl", "sdxl"), (r"flux\.?1|flux-(dev|schnell)", "flux1"),
    (r"flux\.?2", "flux2"), (r"sd3", "sd3"), (r"qwen_image", "qwen_image"),
    (r"^v1-[45]|sd-?v?1[-_.]?5", "sd1"), (r"^v2-[01]|sd-?v?2[-_.]?[01]", "sd2"),
)  # fmt: skip

_DISTILLED = re.compile(r"turbo|lightning|schnell|distill|(?<![a-z])(lcm|hyper|dmd2?)(?![a-z])")


def family_of(header: Header) -> str | None:
    """Return the family of a checkpoint, diffusion model or LoRA; None if its tensors and texts leave a doubt."""
    seen, said = _by_tensors(header.shapes), family_of_metadata(header.metadata)
    if seen is None or said is None or said == seen.removesuffix("_inpainting"):
        return seen or said
    return None


def family_of_metadata(metadata: Mapping[str, str]) -> str | None:
    """Return the family that a file's metadata names (modelspec, or the trainer of a LoRA)."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        told = str(metadata.get(key, "")).lower()
        for start, family in _ARCHITECTURES:
            if told.startswith(start):
                return family
    return None


def family_of_name(name: str) -> str | None:
    """Return the family of a base model that is published under a name.

    Only for files that are not there, whose flows go on with an installed one of that family.
    """
    file = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
    family = next((named for pattern, named in _PUBLISHED if re.search(pattern, file)), None)
    return refined_by_name(family, file)


def refined_by_name(family: str | None, name: str) -> str | None:
    """Return the family, set apart if a file's name says that it runs in few steps: "sdxl/distilled".

    Such models have the tensors of their family, but want other steps and guidance, and so have such LoRAs.
    """
    return f"{family}/distilled" if family and _DISTILLED.search(name.lower()) else family


def base_of(family: str) -> str:
    """Return the family without its refinement: "sdxl" of "sdxl/pony"."""
    return family.split("/", 1)[0]


def _by_tensors(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    for family, pieces in _MARKS:
        if any(all(piece in name for piece in pieces) for name in shapes):
            return family
    widths = {
        shape[1]
        for name, shape in shapes.items()
        if len(shape) > 1 and name.endswith(_INWARD) and _ATTENDS.search(name) and _UNET.search(name)
    }
    told = _TEXT_WIDTHS.get(widths.pop()) if len(widths) == 1 else None
    first = next((shape for name, shape in shapes.items() if name.endswith(_FIRST_LAYERS)), ())
    inpainting = len(first) == 4 and first[1] == _INPAINTING
    return f"{told}_inpainting" if told and inpainting else told
