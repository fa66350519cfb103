"""The encoder of T5 1.1 in Hugging Face's layout, as Stable Diffusion 3 and Flux have it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.assemble import t5_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import count_indices
from flowsmith.execution.text import Tower
from flowsmith.execution.text_chunks import Framing
from flowsmith.execution.tokenizers import t5_tokenizer

_ATTENTION = "encoder.block.0.layer.0.SelfAttention."
_FEED = "encoder.block.0.layer.1.DenseReluDense."
_END, _PAD = 1, 0


def is_t5(tensors: Mapping[str, Tensor]) -> bool:
    """Say whether tensors are those of a T5."""
    return f"{_ATTENTION}q.weight" in tensors


def t5_tower(
    tensors: Mapping[str, Tensor],
    source: Path,
    tokenizer: str,
    length: int,
    dtype: torch.dtype = torch.float32,
) -> Tower:
    """Build a T5 encoder from its tensors; those of a decoder are left out.

    Args:
        tensors: Without prefix.
        source: Named in errors.
        tokenizer: Folder or hub id of its tokenizer.
        length: Tokens to which shorter texts are padded; padding is attended to, as the diffusion models were
            trained.
        dtype: Number type of the weights.

    Raises:
        ModelFileError: They are not those of a whole network, or there is no tokenizer.
    """
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(("shared.", "encoder."))}
    try:
        config = t5_config(kept)
    except KeyError as error:
        raise ModelFileError(f"{source}: the T5 lacks {error.args[0]}; use a whole file") from error
    network = t5_network(config, kept, source, dtype)
    return Tower(network, t5_tokenizer(tokenizer), Framing(_END, _PAD, length, whole=True))


def t5_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the configuration of a T5EncoderModel off its tensors."""
    words = tensors.get("shared.weight", tensors.get("encoder.embed_tokens.weight"))
    if words is None:
        raise KeyError("shared.weight")
    query, bias = tensors[f"{_ATTENTION}q.weight"], tensors[f"{_ATTENTION}relative_attention_bias.weight"]
    gated = f"{_FEED}wi_0.weight" in tensors
    return {
        "vocab_size": words.shape[0],
        "d_model": words.shape[1],
        "d_kv": query.shape[0] // bias.shape[1],
        "d_ff": tensors[f"{_FEED}wi_0.weight" if gated else f"{_FEED}wi.weight"].shape[0],
        "num_layers": count_indices(tensors, "encoder.block."),
        "num_heads": bias.shape[1],
        "relative_attention_num_buckets": bias.shape[0],
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }
