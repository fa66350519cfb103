"""CLIP text networks in the two layouts that they come in: Hugging Face's, and OpenCLIP's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from flowsmith.execution.assemble import clip_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import count_indices
from flowsmith.execution.text import Tower
from flowsmith.execution.text_chunks import Framing
from flowsmith.execution.tokenizers import clip_tokenizer

ClipName: TypeAlias = Literal["l", "h", "g"]

_HEAD_WIDTH = 64
_WORDS = "embeddings.token_embedding.weight"
_START, _END = 49406, 49407


def is_clip(tensors: Mapping[str, Tensor]) -> bool:
    """Say whether tensors are those of a CLIP text network, in either layout."""
    return any(name.removeprefix("text_model.") in (_WORDS, "token_embedding.weight") for name in tensors)


def clip_depth(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of layers, in either layout."""
    named = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    return count_indices(named, "encoder.layers.") or count_indices(named, "transformer.resblocks.")


def clip_tower(
    name: ClipName,
    tensors: Mapping[str, Tensor],
    source: Path,
    layer: int | None = None,
    normed: bool = True,
    projected: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tower:
    """Build a CLIP text network with its tokenizer from tensors in either layout.

    Args:
        name: Which one: OpenAI's L has another activation and other padding than OpenCLIP's H and G.
        tensors: Without prefix, or under "text_model.".
        source: Named in errors.
        layer: See `Tower`.
        normed: See `Tower`.
        projected: See `Tower`.
        dtype: Number type of the weights.

    Raises:
        ModelFileError: They are not those of a whole network.
    """
    if "token_embedding.weight" in tensors:
        tensors = _from_open_clip(tensors)
    named = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items()}
    try:
        config = clip_config(named, name)
    except KeyError as error:
        raise ModelFileError(f"{source}: the text encoder lacks {error.args[0]}; use a whole file") from error
    if config["vocab_size"] <= _END:
        raise ModelFileError(
            f"{source}: its text encoder knows {config['vocab_size']} words; use one with CLIP's {_END + 1}, or a "
            "diffusers folder with a tokenizer of its own"
        )
    pad = _END if name == "l" else 0
    framing = Framing(_END, pad, config["max_position_embeddings"], _START)
    network = clip_network(config, named, source, dtype)
    return Tower(network, clip_tokenizer(), framing, layer, normed, projected)


def clip_config(tensors: Mapping[str, Tensor], name: ClipName) -> dict[str, Any]:
    """Read the configuration of a CLIPTextModel off tensors in Hugging Face's layout, without "text_model."."""
    words = tensors[_WORDS]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "intermediate_size": tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count_indices(tensors, "encoder.layers."),
        "num_attention_heads": max(1, words.shape[1] // _HEAD_WIDTH),
        "max_position_embeddings": tensors["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu" if name == "l" else "gelu",
    }


def _from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    # Without a projection diffusers asks the network for its width; an identity says it too, and changes nothing.
    width = tensors["token_embedding.weight"].shape[1]
    complete = {"text_projection": torch.eye(width), **tensors}
    renamed: dict[str, Tensor] = convert_open_clip_checkpoint(None, complete, prefix="")
    return renamed
