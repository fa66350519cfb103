"""Attention over a cache in two parts: the prompt, kept once for a group, and what each sequence wrote since.

Both parts are attended to apart. A softmax over both is the mean of the two results, weighed by how much
probability each part holds; the log-sum-exp of the scores says how much (FlashAttention's merging of blocks,
arXiv 2205.14135).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowsmith.policy.errors import PolicyError

_NAME = "flowsmith_decoding"
_UNSUPPORTED = ("position_bias", "s_aux", "softcap")  # what some models pass, and this does not compute


class Step(Protocol):
    """One forward pass: where its keys and values go, and what its queries see."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return V x N x heads x D for V x heads x N x D."""

    @property
    def reach(self) -> int:
        """The longest distance that a query looks back, in tokens."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return attention and the log-sum-exp of its scores.

    Args:
        query: B x heads x M x D.
        key: B x key heads x T x D; the number of heads is a multiple of the key heads'.
        value: As ``key``.
        scale: Of the scores.
        bias: Added to the scores, -inf where nothing is to be seen, B x 1 x 1 x T or B x 1 x M x T.

    Returns:
        B x M x heads x D and B x M x heads.
    """
    if query.device.type == "cpu":  # one fused kernel
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, total = fused(query, key, value, 0.0, False, attn_mask=bias, scale=scale)
        return out.transpose(1, 2), total.transpose(1, 2)
    batch, heads, width, size = query.shape
    # Query heads that share a key head are rows of one product; the keys are never repeated.
    grouped = query.reshape(batch, key.shape[1], -1, width, size)
    scores = torch.einsum("bgrmd,bgtd->bgrmt", grouped, key) * scale
    scores = scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
    if bias is not None:
        scores = scores + bias[:, :, None]
    total = scores.logsumexp(-1)
    out = torch.einsum("bgrmt,bgtd->bgrmd", (scores - total[..., None]).exp().to(value.dtype), value)
    return (
        out.reshape(batch, heads, width, size).transpose(1, 2),
        total.reshape(batch, heads, width).transpose(1, 2),
    )


def merge(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Combine attention over two sets of keys, as `attend` returns it, into attention over both."""
    share = (first[1] - second[1]).sigmoid()[..., None]
    return torch.lerp(second[0], first[0], share.to(first[0].dtype))


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Return causal attention of equally many queries and keys, B x heads x L x D: B x L x heads x D."""
    shared = query.shape[1] != key.shape[1]
    out = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=shared
    )
    return out.transpose(1, 2)


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Be an attention function of transformers; the forward pass was called with ``decoding=`` a `Step`."""
    step: Step | None = settings.get("decoding")
    if step is None:
        raise PolicyError(
            f"{type(module).__name__} does not hand the model's keyword arguments on to its attention, so it "
            "cannot decode with a shared prompt; use a model that does, such as Llama, Qwen or Mistral"
        )
    for name in _UNSUPPORTED:
        if settings.get(name) is not None:
            raise PolicyError(
                f"{type(module).__name__} attends with {name}, which decoding does not compute; use a model "
                "without, such as Llama, Qwen or Mistral"
            )
    window = settings.get("sliding_window")
    if window is not None and step.reach > window:
        raise PolicyError(
            f"{type(module).__name__} sees a window of {window} tokens, but prompt and flow have "
            f"{step.reach}; shorten them, or use a model that sees all"
        )
    layer: Any = module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast, positions are turned in full precision and values are not.
    query, key = query.to(value.dtype), key.to(value.dtype)
    return step.attend(layer, query, key, value, scale), None


@contextmanager
def decoding_attention(model: Any) -> Iterator[None]:
    """Let a transformers model compute attention by the `Step` that its forward pass is called with.

    Args:
        model: A transformers causal LM.

    Raises:
        PolicyError: Its attention cannot be replaced.
    """
    from transformers import AttentionInterface

    if not getattr(model, "_supports_attention_backend", False):
        raise PolicyError(
            f"{type(model).__name__}: its attention is not transformers' AttentionInterface, so it cannot be "
            "sampled; use a model whose is, such as Llama, Qwen, Mistral or GPT-2"
        )
    AttentionInterface.register(_NAME, _forward)
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
