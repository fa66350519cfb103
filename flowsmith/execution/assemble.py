"""Building networks from a configuration and tensors, strictly: no weight may be missing or left over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.execution.errors import ModelFileError


def load_strictly(
    network: nn.Module, tensors: Mapping[str, Tensor], source: Path, dtype: torch.dtype
) -> None:
    """Give a network without values, one on the device "meta", its tensors.

    Raises:
        ModelFileError: A tensor is missing, left over or of another shape than the configuration says.
    """
    # Copies: a tensor that is read may be a view into its file, which may change.
    owned = {
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }
    try:
        network.load_state_dict(owned, strict=True, assign=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        told = " ".join(line.strip() for line in lines[1:4]) or lines[0]
        raise ModelFileError(
            f"{source}: tensors do not fit a {type(network).__name__} ({told[:300]}); use weights "
            "and configuration that were saved together"
        ) from error


def diffusers_network(
    kind: type,
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    source: Path,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build a diffusers network for inference on the CPU.

    It is laid out without initial values, which would take longer than reading the weights.
    """
    try:
        with torch.device("meta"):
            network: nn.Module = kind.from_config(config)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelFileError(
            f"{source}: no {kind.__name__} can be built ({error}); use a whole file of a usual model"
        ) from error
    renamed = dict(tensors)
    rename = getattr(network, "_fix_state_dict_keys_on_load", None)
    if rename is not None:  # attention layers of 2022's VAEs had other names
        rename(renamed)
    load_strictly(network, renamed, source, dtype)
    return network.requires_grad_(False).eval()


def clip_network(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Build a CLIP text model for inference on the CPU, with a projection if there is one."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    projection = tensors.get("text_projection.weight")
    settings = dict(config) if projection is None else {**config, "projection_dim": projection.shape[0]}
    with torch.device("meta"):
        kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
        network: nn.Module = kind(CLIPTextConfig(**settings))
    inner: Any = getattr(network, "text_model", network)
    inner.embeddings.position_ids = torch.arange(inner.embeddings.position_embedding.num_embeddings)[None]
    # Older transformers keep the model under "text_model.", newer ones do not; there are files of both kinds.
    prefix = "" if inner is network else "text_model."
    named = {
        name if name.startswith("text_projection.") else prefix + name.removeprefix("text_model."): tensor
        for name, tensor in tensors.items()
        if not name.endswith(("position_ids", "logit_scale"))
    }
    load_strictly(network, named, source, dtype)
    return network.requires_grad_(False).eval()


def t5_network(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Build the encoder of a T5 for inference on the CPU."""
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        network: nn.Module = T5EncoderModel(T5Config(**config))
    words = tensors.get("shared.weight", tensors.get("encoder.embed_tokens.weight"))
    tied = {} if words is None else {"shared.weight": words, "encoder.embed_tokens.weight": words}
    load_strictly(network, {**tensors, **tied}, source, dtype)
    inner: Any = network
    inner.encoder.embed_tokens.weight = inner.shared.weight
    return network.requires_grad_(False).eval()
