"""The transformer of Stable Diffusion 3 in its authors' layout ("joint_blocks.0.x_block.attn.qkv.weight")."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from flowsmith.execution.layouts.places import Place, swapped, thirds, whole
from flowsmith.execution.model_files import count_indices

_HEAD_WIDTH = 64


def mmdit_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the configuration of a diffusers SD3Transformer2DModel off its tensors."""
    patches = tensors["x_embedder.proj.weight"]
    width, channels, patch = patches.shape[:3]
    norm = tensors.get("joint_blocks.0.x_block.attn.ln_q.weight")
    head = min(_HEAD_WIDTH, width) if norm is None else norm.shape[0]
    layers = count_indices(tensors, "joint_blocks.")
    dual = [k for k in range(layers) if f"joint_blocks.{k}.x_block.attn2.qkv.weight" in tensors]
    context = tensors["context_embedder.weight"]
    return {
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": tensors["final_layer.linear.weight"].shape[0] // patch**2,
        "num_layers": layers,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": context.shape[1],
        "caption_projection_dim": context.shape[0],
        "pooled_projection_dim": tensors["y_embedder.mlp.0.weight"].shape[1],
        "pos_embed_max_size": math.isqrt(tensors["pos_embed"].shape[1]),
        "dual_attention_layers": dual,
        "qk_norm": None if norm is None else "rms_norm",
    }


def rename_mmdit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the transformer's tensors to diffusers' names, and take apart what is one tensor here."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    renamed: dict[str, Tensor] = convert_sd3_transformer_checkpoint_to_diffusers(dict(tensors))
    return renamed


def mmdit_places(layers: int) -> Iterator[tuple[str, Place]]:
    """Yield each linear layer by the authors' name, with its place in a transformer of so many blocks."""
    for name, module in _ALONE.items():
        yield name, Place((module,), swapped if name == _SHIFT_AND_SCALE else whole)
    for k in range(layers):
        for side, (attention, feed, norm, out) in _SIDES.items():
            here, there = f"joint_blocks.{k}.{side}_block", f"transformer_blocks.{k}"
            # The last block has no text to hand on, and its text's norm another form.
            last = side == "context" and k == layers - 1
            yield f"{here}.adaLN_modulation.1", Place((f"{there}.{norm}.linear",), swapped if last else whole)
            yield f"{here}.attn.qkv", Place(tuple(f"{there}.attn.{part}" for part in attention), thirds)
            yield f"{here}.attn.proj", Place((f"{there}.attn.{out}",))
            yield f"{here}.mlp.fc1", Place((f"{there}.{feed}.net.0.proj",))
            yield f"{here}.mlp.fc2", Place((f"{there}.{feed}.net.2",))
        here, there = f"joint_blocks.{k}.x_block.attn2", f"transformer_blocks.{k}.attn2"
        yield f"{here}.qkv", Place(tuple(f"{there}.to_{part}" for part in "qkv"), thirds)
        yield f"{here}.proj", Place((f"{there}.to_out.0",))


_SHIFT_AND_SCALE = "final_layer.adaLN_modulation.1"
_ALONE: dict[str, str] = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    _SHIFT_AND_SCALE: "norm_out.linear",
    **{
        f"{here}_embedder.mlp.{2 * layer}": f"time_text_embed.{there}_embedder.linear_{1 + layer}"
        for here, there in (("t", "timestep"), ("y", "text"))
        for layer in (0, 1)
    },
}
_SIDES = {
    "x": (("to_q", "to_k", "to_v"), "ff", "norm1", "to_out.0"),
    "context": (("add_q_proj", "add_k_proj", "add_v_proj"), "ff_context", "norm1_context", "to_add_out"),
}
