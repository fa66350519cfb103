"""The UNets of Stable Diffusion 1, 2 and XL in their authors' layout ("input_blocks.1.0.in_layers.2.weight")."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.places import Place
from flowsmith.execution.model_files import count_indices

_PREFIX = "model.diffusion_model."
_HEADS = 8  # of Stable Diffusion 1 at every width; the later ones have heads of 64 channels
_HEAD_WIDTH = 64
_V_SPREAD = 0.09
_SIZE_WIDTH = 256  # channels in which SDXL embeds each number that it is told


@dataclass
class _Level:
    """What the encoder has at one resolution: its channels, and of each block the transformers' depth."""

    channels: int = 0
    depths: tuple[int, ...] = ()


def unet_config(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """Read the configuration of a diffusers UNet2DConditionModel off a UNet's tensors.

    Raises:
        ModelFileError: Its blocks are of unlike depth, as in distilled variants of SDXL.
    """
    levels = _levels(tensors)
    middle = count_indices(tensors, "middle_block.1.transformer_blocks.")
    depths = [level.depths[0] for level in levels]
    inner = depths[-1] or middle  # diffusers gives the middle the depth of the last level
    if any(len(set(level.depths)) > 1 for level in levels) or inner != middle or not middle:
        raise ModelFileError(
            f"{source}: its transformers are {[level.depths for level in levels]} blocks deep and {middle} in "
            "the middle; use a UNet whose levels are of one depth, with a transformer in the middle"
        )
    linear = tensors["middle_block.1.proj_in.weight"].dim() == 2
    heads = [max(1, level.channels // _HEAD_WIDTH) for level in levels] if linear else _HEADS
    config: dict[str, Any] = {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": [level.channels for level in levels],
        "layers_per_block": len(levels[0].depths),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [max(1, depth) for depth in depths[:-1]] + [inner],
        "cross_attention_dim": tensors["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": heads,  # diffusers means the number of heads by it in this family
        "use_linear_projection": linear,
    }
    if "label_emb.0.0.weight" in tensors:
        config["addition_embed_type"] = "text_time"
        config["addition_time_embed_dim"] = _SIZE_WIDTH
        config["projection_class_embeddings_input_dim"] = tensors["label_emb.0.0.weight"].shape[1]
    return config


def _levels(tensors: Mapping[str, Tensor]) -> list[_Level]:
    levels = [_Level()]
    for block in range(1, 1 + count_indices(tensors, "input_blocks.", start=1)):
        stem = f"input_blocks.{block}"
        if f"{stem}.0.op.weight" in tensors:
            levels.append(_Level())
            continue
        levels[-1].channels = tensors[f"{stem}.0.out_layers.3.weight"].shape[0]
        levels[-1].depths += (count_indices(tensors, f"{stem}.1.transformer_blocks."),)
    return levels


def rename_unet(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Rename a UNet's tensors to diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    renamed: dict[str, Tensor] = convert_ldm_unet_checkpoint(
        {_PREFIX + name: tensor for name, tensor in tensors.items()}, config
    )
    return renamed


def predicts_v(tensors: Mapping[str, Tensor], second: bool) -> bool:
    """Say whether a UNet predicts v instead of noise, as far as its file tells.

    Files of SDXL say so by an empty tensor named "v_pred". Those of Stable Diffusion 2 do not; but in training
    for v the shift of a norm late in the decoder comes to vary more, a sign that ComfyUI goes by.

    Args:
        tensors: The UNet's, with marks that lie beside it in the file.
        second: Whether it is a Stable Diffusion 2.
    """
    if "v_pred" in tensors:
        return True
    last = count_indices(tensors, "output_blocks.") - 1
    shift = tensors.get(f"output_blocks.{last}.1.transformer_blocks.0.norm1.bias")
    return second and shift is not None and float(shift.float().std(unbiased=False)) > _V_SPREAD


def unet_places(modules: Iterable[str], levels: int, blocks: int) -> Iterator[tuple[str, Place]]:
    """Yield modules by the authors' names, with their places.

    Args:
        modules: Names in diffusers.
        levels: Resolutions that the UNet has.
        blocks: Residual blocks a level of its encoder; the decoder has one more.
    """
    modules, stems = list(modules), dict(_stems(levels, blocks))
    for module in modules:
        parts = module.split(".")
        # "conv_in", "mid_block.resnets.0", "up_blocks.0.attentions.1", "down_blocks.0.downsamplers.0.conv"
        stem = next((s for k in range(1, 6) if (s := ".".join(parts[:k])) in stems), None)
        if stem is None:
            continue
        inner = module.removeprefix(stem)
        if ".resnets." in stem:
            for there, here in _RESNET.items():
                inner = inner.replace(there, here)
        name = stems[stem] + inner
        if ".upsamplers." in stem and stem.replace("upsamplers", "attentions") in modules:
            name = name.replace(".1.conv", ".2.conv")  # it stands behind the transformer, if there is one
        yield name, Place((module,))


def _stems(levels: int, blocks: int) -> Iterator[tuple[str, str]]:
    """Yield diffusers' names of the parts that a UNet is built of, with the authors' ones."""
    yield from _ALONE.items()
    for level in range(levels):
        down, up = 1 + level * (blocks + 1), level * (blocks + 1)
        for k in range(blocks):
            yield f"down_blocks.{level}.resnets.{k}", f"input_blocks.{down + k}.0"
            yield f"down_blocks.{level}.attentions.{k}", f"input_blocks.{down + k}.1"
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{down + blocks}.0.op"
        for k in range(blocks + 1):
            yield f"up_blocks.{level}.resnets.{k}", f"output_blocks.{up + k}.0"
            yield f"up_blocks.{level}.attentions.{k}", f"output_blocks.{up + k}.1"
        yield f"up_blocks.{level}.upsamplers.0", f"output_blocks.{up + blocks}.1"


_ALONE: dict[str, str] = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    **{
        f"{there}_embedding.linear_{1 + k}": f"{here}.{2 * k}"
        for there, here in (("time", "time_embed"), ("add", "label_emb.0"))
        for k in (0, 1)
    },
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
