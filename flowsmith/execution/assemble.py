"""Building networks from a configuration and tensors, strictly: no weight may be missing or left over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.execution.errors import ModelFileError


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors into a network.

    Raises:
        ModelFileError: A tensor is missing, left over or of another shape than the configuration says.
    """
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        told = " ".join(line.strip() for line in lines[1:4]) or lines[0]
        raise ModelFileError(
            f"{source}: tensors do not fit a {type(network).__name__} ({told[:300]}); use weights "
            "and configuration that were saved together"
        ) from error


def diffusers_network(
    kind: type, config: dict[str, Any], tensors: Mapping[str, Tensor], source: Path
) -> nn.Module:
    """Build a diffusers network for inference on the CPU.

    It is laid out without initial values, which would take longer than reading the weights.
    """
    with torch.device("meta"):
        network: nn.Module = kind.from_config(config)  # type: ignore[attr-defined]
    network = network.to_empty(device="cpu")
    renamed = dict(tensors)
    rename = getattr(network, "_fix_state_dict_keys_on_load", None)
    if rename is not None:  # attention layers of 2022's VAEs had other names
        rename(renamed)
    load_strictly(network, renamed, source)
    return network.requires_grad_(False).eval()


def text_network(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> nn.Module:
    """Build a CLIP text model for inference on the CPU."""
    from transformers import CLIPTextConfig, CLIPTextModel

    network: nn.Module = CLIPTextModel(CLIPTextConfig(**config))
    # Older transformers keep the model under "text_model.", newer ones do not; there are files of both kinds.
    prefix = "text_model." if hasattr(network, "text_model") else ""
    named = {
        prefix + name.removeprefix("text_model."): tensor
        for name, tensor in tensors.items()
        if not name.endswith("position_ids") and not name.startswith("text_projection")
    }
    load_strictly(network, named, source)
    return network.requires_grad_(False).eval()
