"""From hidden states to the probability of chosen tokens; batch x length x vocabulary is never there at once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**23
"""Logits that are held at a time: 32 MB of float32."""


Head = tuple[Tensor, Tensor | None]
"""Weight (rows x width) and bias (rows) of the part of the language head that takes part."""


class Chosen(NamedTuple):
    """What is known of N chosen tokens, N each."""

    logprobs: Tensor
    entropy: Tensor
    likeliest: Tensor
    """True where no token was likelier than the chosen one."""


class AllowedTokens(NamedTuple):
    """Out of what N tokens were chosen.

    Attributes:
        masks: The distinct sets, U x rows of the head.
        mask_of: Which set applies, N.
    """

    masks: Tensor
    mask_of: Tensor


def chosen_tokens(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    allowed: AllowedTokens | None = None,
    temperature: float = 1.0,
    at_once: int = LOGITS_AT_ONCE,
) -> Chosen:
    """Compute log-probability and entropy of chosen tokens, with gradients of both.

    More than ``at_once`` logits are computed piece by piece, and again piece by piece in the backward pass.

    Args:
        hidden: States that choose, N x width.
        head: What turns a state into logits.
        tokens: What was chosen, counted from the head's first row, N.
        allowed: Out of what; None: every token is allowed everywhere.
        temperature: Divides the logits.
        at_once: Most logits held at a time, at least those of one choice.
    """
    weight, bias = head

    def piece(states: Tensor, given: Tensor, sets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        mask = None if sets is None or allowed is None else allowed.masks[sets]
        result: tuple[Tensor, Tensor, Tensor] = _Choose.apply(
            functional.linear(states, weight, bias), given, mask, temperature
        )
        return result

    size = max(1, at_once // len(weight))
    if len(tokens) <= size:
        return Chosen(*piece(hidden, tokens, None if allowed is None else allowed.mask_of))
    parts = hidden.split(size), tokens.split(size)
    sets = [None] * len(parts[0]) if allowed is None else allowed.mask_of.split(size)
    pieces = [
        checkpoint(piece, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(*parts, sets, strict=True)
    ]
    return Chosen(*(torch.cat(results) for results in zip(*pieces, strict=True)))


class _Choose(torch.autograd.Function):
    """Log-softmax, one entry of it, and its entropy, keeping a single tensor of the logits' size.

    With p the probabilities, a the chosen token, H the entropy and t the temperature, the gradients to the logits are
    (1[a] - p) / t of the log-probability and -p (log p + H) / t of the entropy.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, mask: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # A softmax over half-precision logits would lose what tells close choices apart.
        exact = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        scaled = exact if temperature == 1 else exact / temperature
        if mask is not None:
            # The lowest number instead of -inf: its probability is 0 as well, and 0 times it is not NaN.
            scaled = scaled.masked_fill(~mask, torch.finfo(scaled.dtype).min)
        logprobs = scaled.log_softmax(-1)
        probabilities = logprobs.exp()
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        likeliest = chosen >= logprobs.amax(-1)
        entropy = -logprobs.mul_(probabilities).sum(-1)
        ctx.save_for_backward(probabilities, tokens, entropy)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.mark_non_differentiable(likeliest)
        ctx.set_materialize_grads(False)
        return chosen, entropy, likeliest

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_chosen: Tensor | None, grad_entropy: Tensor | None, _: None
    ) -> tuple[Tensor | None, None, None, None]:
        probabilities, tokens, entropy = ctx.saved_tensors
        if grad_chosen is None and grad_entropy is None:
            return None, None, None, None
        of_p = torch.zeros_like(entropy)
        if grad_chosen is not None:
            of_p = of_p - grad_chosen
        if grad_entropy is not None:
            of_p = of_p - grad_entropy * entropy
        grad = probabilities * of_p[:, None]
        if grad_entropy is not None:
            grad.addcmul_(torch.special.entr(probabilities), grad_entropy[:, None])
        if grad_chosen is not None:
            grad.scatter_add_(1, tokens[:, None], grad_chosen[:, None])
        if ctx.temperature != 1:
            grad.div_(ctx.temperature)
        return grad.to(ctx.dtype), None, None, None
