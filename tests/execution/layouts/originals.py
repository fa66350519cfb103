"""From diffusers' names to those of the files that the authors published, written down from their model code.

Used to write random models in the very format that users have; nothing here is shared with the loaders.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_UNET = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)


def original_unet(tensors: Mapping[str, Tensor], layers: int) -> Tensors:
    """Rename a UNet with ``layers`` residual blocks a level; without prefix."""
    return {unet_name(name, layers, tensors): tensor for name, tensor in tensors.items()}


def unet_name(name: str, layers: int, tensors: Mapping[str, Tensor]) -> str:
    """Rename one parameter of a UNet."""
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name):
        side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if side == "down":
            block = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index)
            inner = {"resnets": "0", "attentions": "1", "downsamplers": "0"}[kind]
            rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
            name = f"input_blocks.{block}.{inner}.{rest}"
        else:
            block = level * (layers + 1) + (layers if kind == "upsamplers" else index)
            attention = any(key.startswith(f"up_blocks.{level}.attentions.") for key in tensors)
            inner = {"resnets": "0", "attentions": "1", "upsamplers": "2" if attention else "1"}[kind]
            name = f"output_blocks.{block}.{inner}.{rest}"
    for there, here in _UNET:
        if name.startswith(f"{there}."):
            name = here + name.removeprefix(there)
    if re.match(r"(input_blocks|output_blocks)\.\d+\.0\.|middle_block\.[02]\.", name):
        for there, here in _RESNET:
            name = name.replace(f".{there}.", f".{here}.")
    return name


_VAE = (
    (r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block."),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down.\1.downsample.conv"),
    (r"upsamplers\.0\.conv", "upsample.conv"),
    (r"\.resnets\.", ".block."),
    (r"mid_block\.block\.0", "mid.block_1"),
    (r"mid_block\.block\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
)


def original_vae(tensors: Mapping[str, Tensor], levels: int, prefix: str = "") -> Tensors:
    """Rename a VAE's tensors back to the layout that they had before diffusers."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(
            r"up_blocks\.(\d+)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", name
        )  # counted from the end
        for pattern, place in _VAE:
            name = re.sub(pattern, place, name)
        attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        renamed[prefix + name] = (tensor[:, :, None, None] if attention else tensor).contiguous()
    return renamed


def original_taesd(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """Rename a diffusers AutoencoderTiny to the author's two files, "encoder" and "decoder"."""
    halves: dict[str, Tensors] = {"encoder": {}, "decoder": {}}
    for name, tensor in tensors.items():
        half, _, layer, rest = name.split(".", 3)
        halves[half][f"{int(layer) + (half == 'decoder')}.{rest}"] = tensor  # behind a layer that clamps
    return halves


def original_mmdit(tensors: Mapping[str, Tensor], layers: int) -> Tensors:
    """Rename a diffusers SD3Transformer2DModel; without prefix."""
    left, found = dict(tensors), {"pos_embed": tensors["pos_embed.pos_embed"]}
    for name in ("weight", "bias"):

        def move(here: str, *there: str, swap: bool = False, name: str = name) -> None:
            parts = [left.pop(f"{module}.{name}") for module in there if f"{module}.{name}" in left]
            if parts:
                found[f"{here}.{name}"] = torch.cat(_swap(parts[0]) if swap else parts)

        move("x_embedder.proj", "pos_embed.proj")
        move("context_embedder", "context_embedder")
        for layer in (0, 1):
            move(f"t_embedder.mlp.{2 * layer}", f"time_text_embed.timestep_embedder.linear_{layer + 1}")
            move(f"y_embedder.mlp.{2 * layer}", f"time_text_embed.text_embedder.linear_{layer + 1}")
        move("final_layer.linear", "proj_out")
        move("final_layer.adaLN_modulation.1", "norm_out.linear", swap=True)
        for k in range(layers):
            old, new = f"transformer_blocks.{k}", f"joint_blocks.{k}"
            move(f"{new}.x_block.attn.qkv", *(f"{old}.attn.to_{part}" for part in "qkv"))
            move(f"{new}.x_block.attn2.qkv", *(f"{old}.attn2.to_{part}" for part in "qkv"))
            move(f"{new}.context_block.attn.qkv", *(f"{old}.attn.add_{part}_proj" for part in "qkv"))
            for block, out, ff, norm in (
                ("x_block", "to_out.0", "ff", "norm1"),
                ("context_block", "to_add_out", "ff_context", "norm1_context"),
            ):
                last = block == "context_block" and k == layers - 1
                move(f"{new}.{block}.attn.proj", f"{old}.attn.{out}")
                move(f"{new}.{block}.mlp.fc1", f"{old}.{ff}.net.0.proj")
                move(f"{new}.{block}.mlp.fc2", f"{old}.{ff}.net.2")
                move(f"{new}.{block}.adaLN_modulation.1", f"{old}.{norm}.linear", swap=last)
            move(f"{new}.x_block.attn2.proj", f"{old}.attn2.to_out.0")
            for there, here in (
                ("attn.norm_q", "x_block.attn.ln_q"),
                ("attn.norm_k", "x_block.attn.ln_k"),
                ("attn.norm_added_q", "context_block.attn.ln_q"),
                ("attn.norm_added_k", "context_block.attn.ln_k"),
                ("attn2.norm_q", "x_block.attn2.ln_q"),
                ("attn2.norm_k", "x_block.attn2.ln_k"),
            ):
                move(f"{new}.{here}", f"{old}.{there}")
    assert set(left) == {"pos_embed.pos_embed"}
    return found


def original_flux(tensors: Mapping[str, Tensor], double: int, single: int) -> Tensors:
    """Rename a diffusers FluxTransformer2DModel; without prefix."""
    left, found = dict(tensors), {}
    for name in ("weight", "bias"):

        def move(here: str, *there: str, swap: bool = False, name: str = name) -> None:
            parts = [left.pop(f"{module}.{name}") for module in there if f"{module}.{name}" in left]
            if parts:
                end = "scale" if here.endswith("_norm") else name
                found[f"{here}.{end}"] = torch.cat(_swap(parts[0]) if swap else parts)

        move("img_in", "x_embedder")
        move("txt_in", "context_embedder")
        for old, new in (("timestep", "time_in"), ("text", "vector_in"), ("guidance", "guidance_in")):
            move(f"{new}.in_layer", f"time_text_embed.{old}_embedder.linear_1")
            move(f"{new}.out_layer", f"time_text_embed.{old}_embedder.linear_2")
        move("final_layer.linear", "proj_out")
        move("final_layer.adaLN_modulation.1", "norm_out.linear", swap=True)
        for k in range(double):
            old, new = f"transformer_blocks.{k}", f"double_blocks.{k}"
            move(f"{new}.img_attn.qkv", *(f"{old}.attn.to_{part}" for part in "qkv"))
            move(f"{new}.txt_attn.qkv", *(f"{old}.attn.add_{part}_proj" for part in "qkv"))
            for side, out, ff, norm, query in (
                ("img", "to_out.0", "ff", "norm1", "norm_"),
                ("txt", "to_add_out", "ff_context", "norm1_context", "norm_added_"),
            ):
                move(f"{new}.{side}_attn.proj", f"{old}.attn.{out}")
                move(f"{new}.{side}_mlp.0", f"{old}.{ff}.net.0.proj")
                move(f"{new}.{side}_mlp.2", f"{old}.{ff}.net.2")
                move(f"{new}.{side}_mod.lin", f"{old}.{norm}.linear")
                move(f"{new}.{side}_attn.norm.query_norm", f"{old}.attn.{query}q")
                move(f"{new}.{side}_attn.norm.key_norm", f"{old}.attn.{query}k")
        for k in range(single):
            old, new = f"single_transformer_blocks.{k}", f"single_blocks.{k}"
            rows = (*(f"{old}.attn.to_{part}" for part in "qkv"), f"{old}.proj_mlp")
            move(f"{new}.linear1", *rows)
            move(f"{new}.linear2", f"{old}.proj_out")
            move(f"{new}.modulation.lin", f"{old}.norm.linear")
            move(f"{new}.norm.query_norm", f"{old}.attn.norm_q")
            move(f"{new}.norm.key_norm", f"{old}.attn.norm_k")
    assert not left
    return found


def _swap(tensor: Tensor) -> list[Tensor]:
    """Give the two halves in the authors' order, shift before scale."""
    scale, shift = tensor.chunk(2)
    return [shift, scale]
