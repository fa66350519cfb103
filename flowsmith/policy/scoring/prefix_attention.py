"""Attention over packed sequences: completions attend to the keys and values of a prompt that is computed once.

Linear layers, norms and the rest of a network see one row of N tokens. Only here are queries, keys and values laid
out as sequences, causal attention is computed, and the result goes back into the row. Reading a prompt's keys several
times is what makes gradients of all its completions flow into it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flowsmith.policy.errors import PolicyError
from flowsmith.policy.scoring.packing import Packed

_NAME = "flowsmith_prefix"
_LAYERS = {"full_attention", "sliding_attention"}


def shares_prompts(causal: Any) -> bool:
    """Tell whether a transformers causal LM lets attention be replaced, and needs nothing but plain attention."""
    config = causal.config
    return (
        bool(getattr(causal, "_supports_attention_backend", False))
        and bool(getattr(causal, "_supports_sdpa", False))
        and set(getattr(config, "layer_types", None) or ()) <= _LAYERS
        and getattr(config, "attn_logit_softcapping", None) is None
        and getattr(config, "is_causal", True) is not False
    )


@contextmanager
def prefix_sharing(causal: Any) -> Iterator[None]:
    """Let a model attend by `prefix_attention`; its forward pass then needs the argument ``packed``."""
    _register()
    config = causal.config
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@cache
def _register() -> None:
    from transformers import AttentionInterface

    # No mask function goes by this name, so transformers builds no mask: N x N would be far larger than B x L x L.
    AttentionInterface.register(_NAME, prefix_attention)


def prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Packed,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence of a packed row, as transformers' interface asks.

    Args:
        module: The attention layer; not used.
        query: 1 x heads x N x width.
        key: 1 x key heads x N x width; key heads divide heads.
        value: 1 x key heads x N x value width.
        attention_mask: None: the layout says all.
        packed: Which tokens make up which sequence.
        scaling: Of the products; None for width ** -0.5.
        dropout: Share of attention weights dropped.
        sliding_window: How many tokens back a token sees, itself included; None for all.
        others: What the model tells every attention function.

    Returns:
        1 x N x heads x value width, and no weights.

    Raises:
        PolicyError: The model asks for an attention that this is not.
    """
    for name in ("s_aux", "softcap", "position_bias"):
        if others.get(name) is not None:
            raise PolicyError(
                f"{type(module).__name__} attends with {name}, which sharing prompts does not know; use a Llama or "
                "Qwen"
            )
    queries, keys, values = (_as_sequences(x, packed) for x in (query, key, value))
    if queries.shape[1] != keys.shape[1]:
        groups = queries.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    # Padding stands behind a sequence, where causal attention of real tokens does not look.
    mask = None
    length = queries.shape[2]
    if sliding_window is not None and sliding_window < length:
        place = torch.arange(length, device=query.device)
        back = place[:, None] - place
        mask = (back >= 0) & (back < sliding_window)
    attended = functional.scaled_dot_product_attention(
        queries, keys, values, mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
    )
    flat = attended.transpose(1, 2).reshape(packed.rows.numel(), -1)
    tokens = functional.embedding(packed.slots, flat)
    return tokens.view(1, len(packed.ids), attended.shape[1], attended.shape[3]), None


def _as_sequences(tokens: Tensor, packed: Packed) -> Tensor:
    """Turn 1 x heads x N x width into B x heads x L x width."""
    _, heads, count, width = tokens.shape
    flat = tokens[0].transpose(0, 1).reshape(count, heads * width)
    # Its backward pass adds up what comes back to a shared token in parallel; that of indexing is serial on a CPU.
    return functional.embedding(packed.rows, flat).view(*packed.rows.shape, heads, width).transpose(1, 2)
