"""LoRA files: low-rank changes of weights, in the namings in use, merged into a copy that shares the rest.

A change is ``strength * alpha / rank * up @ down``; without ``alpha`` it is ``strength * up @ down``, as in
ComfyUI.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import read_tensors

Part = Literal["unet", "text"]

_ENDINGS = {
    ".lora_down.weight": "down",  # kohya
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",  # peft, diffusers
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",  # diffusers of 2023
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
_PREFIXES: tuple[tuple[str, Part], ...] = (
    ("lora_unet_", "unet"),
    ("unet.", "unet"),
    ("base_model.model.", "unet"),
    ("lora_te1_text_model_", "text"),
    ("lora_te_text_model_", "text"),
    ("text_encoder.text_model.", "text"),
    ("text_encoder.", "text"),
)


@dataclass(frozen=True, eq=False)
class Change:
    """A low-rank change of one weight.

    Attributes:
        down: [rank, in] or, of a convolution, [rank, in, h, w].
        up: [out, rank] or [out, rank, 1, 1].
        scale: alpha / rank.
    """

    down: Tensor
    up: Tensor
    scale: float

    def delta(self, like: Tensor) -> Tensor:
        """Return the change at strength 1 in the shape, type and place of the weight."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (product * self.scale).reshape(like.shape).to(like)


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA file: changes by flattened module name ("down_blocks_0_..."), for UNet and text encoder."""

    path: Path
    unet: Mapping[str, Change]
    text: Mapping[str, Change]


def read_lora(path: Path) -> Lora:
    """Read a LoRA file with kohya's, peft's or diffusers' names.

    Raises:
        ModelFileError: The file is broken, holds no low-rank changes, or other kinds of change besides.
    """
    found: dict[tuple[Part, str], dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        place, role = _parse(name, path)
        found.setdefault(place, {})[role] = tensor
    changes: dict[Part, dict[str, Change]] = {"unet": {}, "text": {}}
    for (part, module), tensors in found.items():
        if "down" not in tensors or "up" not in tensors:
            raise ModelFileError(
                f"{path}: {module} has no {'down' if 'up' in tensors else 'up'} matrix; use a whole file"
            )
        rank = tensors["down"].shape[0]
        alpha = float(tensors["alpha"]) if "alpha" in tensors else float(rank)
        changes[part][module] = Change(tensors["down"], tensors["up"], alpha / rank)
    if not found:
        raise ModelFileError(f"{path}: holds no tensors; use a LoRA file")
    return Lora(path, changes["unet"], changes["text"])


def _parse(name: str, path: Path) -> tuple[tuple[Part, str], str]:
    for ending, role in _ENDINGS.items():
        if not name.endswith(ending):
            continue
        for prefix, part in _PREFIXES:
            if name.startswith(prefix):
                flat = _flat(name.removeprefix(prefix).removesuffix(ending))
                return (part, flat), role
    raise ModelFileError(
        f"{path}: {name} is no low-rank change of a UNet or CLIP weight; use a plain LoRA file"
    )


def patched(network: nn.Module, changes: Mapping[str, Change], strength: float, source: Path) -> nn.Module:
    """Return a copy of a network with weights changed; the others are shared, the original is left alone.

    Args:
        network: UNet or text encoder.
        changes: By flattened module name.
        strength: Any number; the change is linear in it.
        source: Named in errors.

    Raises:
        ModelFileError: A change is for a module that the network lacks, or of another shape.
    """
    shared = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    clone = copy.deepcopy(network, dict(shared))
    modules = {_flat(name): module for name, module in clone.named_modules() if hasattr(module, "weight")}
    for name, change in changes.items():
        module = modules.get(name)
        if module is None:
            raise ModelFileError(
                f"{source}: changes {name}, which this checkpoint lacks; use a LoRA of its family"
            )
        weight = module.weight
        if not isinstance(weight, Tensor) or weight.numel() != change.up.shape[0] * change.down[0].numel():
            raise ModelFileError(
                f"{source}: {name} has another shape in this checkpoint; use a LoRA of its family"
            )
        merged = weight.detach() + strength * change.delta(weight)
        module.weight = nn.Parameter(merged.contiguous(memory_format=_format(weight)), requires_grad=False)
    return clone


def patched_bytes(changes: Mapping[str, Change], network: nn.Module) -> int:
    """Return the bytes that a patched copy holds beside the original."""
    modules = {_flat(name): module for name, module in network.named_modules()}
    weights = [modules[name].weight for name in changes if name in modules]
    return sum(weight.nbytes for weight in weights if isinstance(weight, Tensor))


def _flat(name: str) -> str:
    """Bring a module's name to the form in which files of all namings and this network's modules meet."""
    flat = name.removeprefix("text_model.").replace(".", "_").replace("_processor_to_", "_to_")
    return flat.removesuffix("_0") if flat.endswith("_to_out_0") else flat


def _format(weight: Tensor) -> torch.memory_format:
    channels_last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
