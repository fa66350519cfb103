"""The transformer of Flux.1 in its authors' layout ("double_blocks.0.img_attn.qkv.weight").

diffusers has a conversion of its own that knows one width only.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.places import Place, swapped, thirds, thirds_and_inner, whole
from flowsmith.execution.model_files import count_indices

_ROPE = (2, 7, 7)  # sixteenths of a head's width that tell text from picture, row and column


def flux_config(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """Read the configuration of a diffusers FluxTransformer2DModel off its tensors.

    Raises:
        ModelFileError: Its heads are of a width that cannot be split among the axes.
    """
    width, channels = tensors["img_in.weight"].shape
    head = tensors["double_blocks.0.img_attn.norm.key_norm.scale"].shape[0]
    axes = [head * part // 16 for part in _ROPE]
    if sum(axes) != head or any(axis % 2 for axis in axes):
        raise ModelFileError(
            f"{source}: has heads {head} wide; use a Flux whose heads are a multiple of 32 wide"
        )
    return {
        "in_channels": channels,
        "out_channels": tensors["final_layer.linear.weight"].shape[0],
        "num_layers": count_indices(tensors, "double_blocks."),
        "num_single_layers": count_indices(tensors, "single_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": tensors["txt_in.weight"].shape[1],
        "pooled_projection_dim": tensors["vector_in.in_layer.weight"].shape[1],
        "guidance_embeds": "guidance_in.in_layer.weight" in tensors,
        "axes_dims_rope": axes,
    }


def flux_places(double: int, single: int) -> Iterator[tuple[str, Place]]:
    """Yield each module by the authors' name, with its place.

    Args:
        double: Blocks in which text and picture have weights of their own.
        single: Blocks in which they share them.
    """
    for name, module in _ALONE.items():
        yield name, Place((module,), swapped if name == _SHIFT_AND_SCALE else whole)
    for k in range(double):
        for name, (attention, feed, norm, out, norms) in _SIDES.items():
            here, there = f"double_blocks.{k}.{name}", f"transformer_blocks.{k}"
            yield f"{here}_attn.qkv", Place(tuple(f"{there}.attn.{part}" for part in attention), thirds)
            for own, module in (
                ("_mod.lin", f"{norm}.linear"),
                ("_attn.norm.query_norm", f"attn.{norms}q"),
                ("_attn.norm.key_norm", f"attn.{norms}k"),
                ("_attn.proj", f"attn.{out}"),
                ("_mlp.0", f"{feed}.net.0.proj"),
                ("_mlp.2", f"{feed}.net.2"),
            ):
                yield here + own, Place((f"{there}.{module}",))
    for k in range(single):
        here, there = f"single_blocks.{k}", f"single_transformer_blocks.{k}"
        inner = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        yield f"{here}.linear1", Place(tuple(f"{there}.{part}" for part in inner), thirds_and_inner)
        for own, module in (
            ("linear2", "proj_out"),
            ("modulation.lin", "norm.linear"),
            ("norm.query_norm", "attn.norm_q"),
            ("norm.key_norm", "attn.norm_k"),
        ):
            yield f"{here}.{own}", Place((f"{there}.{module}",))


def rename_flux(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the transformer's tensors to diffusers' names, and take apart what is one tensor here."""
    blocks = (count_indices(tensors, "double_blocks."), count_indices(tensors, "single_blocks."))
    renamed: dict[str, Tensor] = {}
    left = dict(tensors)
    for name, place in flux_places(*blocks):
        for here, there in (("weight", "weight"), ("bias", "bias"), ("scale", "weight")):
            tensor = left.pop(f"{name}.{here}", None)
            if tensor is not None:
                parts = zip(place.modules, place.split(tensor), strict=True)
                renamed |= {f"{module}.{there}": part for module, part in parts}
    return renamed | left


_SHIFT_AND_SCALE = "final_layer.adaLN_modulation.1"
_ALONE: dict[str, str] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    _SHIFT_AND_SCALE: "norm_out.linear",
    **{
        f"{here}_in.{layer}_layer": f"time_text_embed.{there}_embedder.linear_{number}"
        for here, there in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance"))
        for layer, number in (("in", 1), ("out", 2))
    },
}
_SIDES = {
    "img": (("to_q", "to_k", "to_v"), "ff", "norm1", "to_out.0", "norm_"),
    "txt": (
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        "ff_context",
        "norm1_context",
        "to_add_out",
        "norm_added_",
    ),
}
