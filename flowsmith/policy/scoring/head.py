"""From hidden states to the probability of chosen tokens; batch x length x vocabulary is never there at once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOGITS_AT_ONCE = 2**23
"""Logits that are held at a time: 32 MB of float32."""

# Computed at a time on a CPU: 1 MB of float32, which its cache holds from one step to the next.
_LOGITS_IN_CACHE = 2**18

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

    Returns:
        Log-probabilities and entropies in single precision at least.
    """
    held = max(1, at_once // len(head[0]))
    rows = min(held, max(1, _LOGITS_IN_CACHE // len(head[0]))) if hidden.device.type == "cpu" else held
    return Chosen(*_ChosenTokens.apply(hidden, *head, tokens, allowed, temperature, rows, held))


class _ChosenTokens(torch.autograd.Function):
    """Logits, their log-softmax, one entry of it and its entropy, with a single tensor of the logits' size at a time.

    With p the probabilities, a the chosen token, H the entropy and t the temperature, the gradients to the logits are
    (1[a] - p) / t of the log-probability and -p (log p + H) / t of the entropy.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        allowed: AllowedTokens | None,
        temperature: float,
        rows: int,
        held: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kept: list[Tensor] = []
        results = []
        for start in range(0, max(1, len(tokens)), rows):
            part = slice(start, start + rows)
            logits = functional.linear(hidden[part], weight, bias)
            shifted = _shifted(logits, allowed, part, temperature)
            exponentials = shifted.exp()
            total = exponentials.sum(-1)
            chosen = shifted.gather(1, tokens[part, None])[:, 0]
            entropy = total.log() - shifted.mul_(exponentials).sum(-1) / total
            results.append((chosen - total.log(), entropy, chosen >= 0))  # the largest was shifted to 0
            if len(tokens) <= held:
                kept += [exponentials, total]
        logprobs, entropy, likeliest = (torch.cat(pieces) for pieces in zip(*results, strict=True))
        ctx.save_for_backward(hidden, weight, bias, tokens, entropy, *kept)
        ctx.allowed, ctx.temperature, ctx.rows, ctx.kind = allowed, temperature, rows, logits.dtype
        ctx.mark_non_differentiable(likeliest)
        ctx.set_materialize_grads(False)
        return logprobs, entropy, likeliest

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None, _: None
    ) -> tuple[Any, ...]:
        hidden, weight, bias, tokens, entropy, *kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if wanted[0] else None
        of_weight = torch.zeros_like(weight) if wanted[1] else None
        of_bias = torch.zeros_like(bias) if wanted[2] else None
        # Under autocast, products of the backward pass are of the numbers that those of the forward pass were of.
        rows, kind = ctx.rows, ctx.kind
        narrow = weight.to(kind)
        for start in range(0, len(tokens), rows):
            part = slice(start, start + rows)
            if kept:
                exponentials, total = kept[:2]
                del kept[:2]
            else:
                logits = functional.linear(
                    hidden[part].to(kind), narrow, None if bias is None else bias.to(kind)
                )
                exponentials = _shifted(logits, ctx.allowed, part, ctx.temperature).exp_()
                total = exponentials.sum(-1)
            grad = _to_logits(
                exponentials,
                total,
                tokens[part],
                entropy[part],
                None if grad_logprobs is None else grad_logprobs[part] / ctx.temperature,
                None if grad_entropy is None else grad_entropy[part] / ctx.temperature,
            ).to(kind)
            if of_hidden is not None:
                of_hidden[part] = grad @ narrow
            if of_weight is not None:
                _add_product(of_weight, grad.mT, hidden[part].to(kind))
            if of_bias is not None:
                of_bias += grad.sum(0)
        return of_hidden, of_weight, of_bias, None, None, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product to a total of at least its precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _shifted(logits: Tensor, allowed: AllowedTokens | None, part: slice, temperature: float) -> Tensor:
    """Return logits as they count, less the largest of each row; what is not allowed is the lowest number."""
    # A softmax over half-precision logits would lose what tells close choices apart.
    exact = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    if temperature != 1:
        exact = exact.div_(temperature)
    if allowed is not None:
        # The lowest number instead of -inf: its exponential is 0 as well, and 0 times it is not NaN.
        exact = exact.masked_fill_(~allowed.masks[allowed.mask_of[part]], torch.finfo(exact.dtype).min)
    return exact.sub_(exact.amax(-1, keepdim=True))


def _to_logits(
    exponentials: Tensor,
    total: Tensor,
    tokens: Tensor,
    entropy: Tensor,
    grad_logprobs: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """Return the gradient to logits, n x rows, of those to log-probabilities and entropies, n each."""
    of_p = torch.zeros_like(total)
    if grad_logprobs is not None:
        of_p -= grad_logprobs
    if grad_entropy is not None:
        of_p -= grad_entropy * entropy
    grad = exponentials * (of_p / total)[:, None]
    if grad_entropy is not None:
        grad.addcmul_(torch.special.entr(exponentials / total[:, None]), grad_entropy[:, None])
    if grad_logprobs is not None:
        grad.scatter_add_(1, tokens[:, None], grad_logprobs[:, None])
    return grad
