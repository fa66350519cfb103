"""LoRA files: low-rank changes of weights, in the namings in use, merged into a copy that shares the rest.

A change is ``strength * alpha / rank * up @ down``; without ``alpha`` it is ``strength * up @ down``, as in
ComfyUI.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.layouts.places import Place
from flowsmith.execution.lora_names import flat
from flowsmith.execution.model_files import read_tensors

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
NETWORK = 0
"""The part of a LoRA that changes the denoising network; the others are text encoders, counted from 1."""

_PREFIXES: tuple[tuple[str, int], ...] = (
    ("lora_unet_", NETWORK),
    ("lora_transformer_", NETWORK),
    ("unet.", NETWORK),
    ("transformer.", NETWORK),
    ("diffusion_model.", NETWORK),
    ("base_model.model.", NETWORK),
    *(
        (f"lora_te{number or ''}_{inner}", number or 1)
        for number in range(4)
        for inner in ("text_model_", "")
    ),
    *((f"text_encoder{suffix}.", number) for number, suffix in ((1, ""), (2, "_2"), (3, "_3"))),
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

    def delta(self, device: torch.device) -> Tensor:
        """Return the change at strength 1 as a float32 matrix [out, in]."""
        up, down = (matrix.to(device, torch.float32).flatten(1) for matrix in (self.up, self.down))
        return (up @ down) * self.scale


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA file.

    Attributes:
        path: Where it is.
        parts: Its changes by flattened module name ("down_blocks_0_..."), by what they are for: `NETWORK`, or the
            number of a text encoder.
    """

    path: Path
    parts: Mapping[int, Mapping[str, Change]]

    @property
    def texts(self) -> dict[int, Mapping[str, Change]]:
        """The changes of text encoders by their number."""
        return {number: changes for number, changes in self.parts.items() if number != NETWORK}

    @property
    def nbytes(self) -> int:
        """The bytes that it holds."""
        return sum(c.down.nbytes + c.up.nbytes for changes in self.parts.values() for c in changes.values())


def read_lora(path: Path) -> Lora:
    """Read a LoRA file with kohya's, peft's or diffusers' names.

    Raises:
        ModelFileError: The file is broken, holds no low-rank changes, or other kinds of change besides.
    """
    found: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        place, role = _parse(name, path)
        found.setdefault(place, {})[role] = tensor
    parts: dict[int, dict[str, Change]] = {}
    for (part, module), tensors in found.items():
        if "down" not in tensors or "up" not in tensors:
            raise ModelFileError(
                f"{path}: {module} has no {'down' if 'up' in tensors else 'up'} matrix; use a whole file"
            )
        rank = tensors["down"].shape[0]
        alpha = float(tensors["alpha"]) if "alpha" in tensors else float(rank)
        parts.setdefault(part, {})[module] = Change(tensors["down"], tensors["up"], alpha / rank)
    if not found:
        raise ModelFileError(f"{path}: holds no tensors; use a LoRA file")
    return Lora(path, parts)


def _parse(name: str, path: Path) -> tuple[tuple[int, str], str]:
    for ending, role in _ENDINGS.items():
        if not name.endswith(ending):
            continue
        for prefix, part in _PREFIXES:
            if name.startswith(prefix):
                return (part, flat(name.removeprefix(prefix).removesuffix(ending))), role
    raise ModelFileError(
        f"{path}: {name} is no low-rank change of a diffusion model's or text encoder's weight; use a plain LoRA file"
    )


def patched(
    network: nn.Module,
    places: Mapping[str, Place],
    changes: Mapping[str, Change],
    strength: float,
    source: Path,
) -> nn.Module:
    """Return a copy of a network with weights changed; the others are shared, the original is left alone.

    Args:
        network: Denoising network or text encoder.
        places: What can be changed in it; see `lora_names.places`.
        changes: By flattened module name.
        strength: Any number; the change is linear in it.
        source: Named in errors.

    Raises:
        ModelFileError: A change is for a module that the network lacks, or of another shape; names the family that
            the LoRA seems to be of.
    """
    shared = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    clone = copy.deepcopy(network, dict(shared))
    for name, change in changes.items():
        if name not in places:
            raise _misfit(source, f"changes {name}, which this model lacks", changes)
        modules: list[Any] = [clone.get_submodule(module) for module in places[name].modules]
        weights: list[Tensor] = [module.weight for module in modules]
        shapes = [(weight.shape[0], weight[0].numel()) for weight in weights]
        if (sum(rows for rows, _ in shapes), shapes[0][1]) != (change.up.shape[0], change.down[0].numel()):
            raise _misfit(source, f"{name} has another shape in this model", changes)
        for module, delta in zip(modules, places[name].split(change.delta(weights[0].device)), strict=True):
            module.weight = _merged(module.weight, strength, delta)
    return clone


def _merged(weight: Tensor, strength: float, delta: Tensor) -> nn.Parameter:
    """Return a weight with its change added; it waits on the CPU, like those that are loaded."""
    merged = weight.detach() + strength * delta.reshape(weight.shape).to(weight)
    return nn.Parameter(merged.cpu().contiguous(memory_format=_format(weight)), requires_grad=False)


def patched_bytes(places: Mapping[str, Place], changes: Mapping[str, Change], network: nn.Module) -> int:
    """Return the bytes that a patched copy holds beside the original."""
    modules = {module for name in changes if name in places for module in places[name].modules}
    weights = [network.get_submodule(module).weight for module in modules]
    return sum(weight.nbytes for weight in weights if isinstance(weight, Tensor))


_CROSS = re.compile(r"(down|up|mid|input|output|middle)_blocks?_.*attn2_to_[kv]$")
_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL", 1280: "the SDXL refiner"}


def _misfit(source: Path, told: str, changes: Mapping[str, Change]) -> ModelFileError:
    family = _family_of(changes)
    seems = f" (it seems to be one for {family})" if family else ""
    return ModelFileError(f"{source}: {told}; use a LoRA of its family{seems}")


def _family_of(changes: Mapping[str, Change]) -> str | None:
    """Guess whose LoRA it is, from names and the width of text that cross-attention reads."""
    if any(
        name.startswith(("double_blocks_", "single_blocks_", "single_transformer_blocks_"))
        for name in changes
    ):
        return "Flux.1"
    if any(name.startswith(("joint_blocks_", "transformer_blocks_")) for name in changes):
        return "Stable Diffusion 3 or Flux.1"
    widths = [change.down[0].numel() for name, change in changes.items() if _CROSS.match(name)]
    return _WIDTHS.get(widths[0]) if widths else None


def _format(weight: Tensor) -> torch.memory_format:
    channels_last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
