"""Choosing tokens: a random number falls on one of them, by inverting the distribution function."""

import torch
from torch import Tensor

from flowsmith.policy.errors import PolicyError


def draw(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sample one token a row.

    Args:
        logits: n x size; -inf where a token is not allowed.
        noise: In [0, 1), n; equal numbers and equal logits give equal tokens.
        temperature: Divides the logits, > 0.

    Returns:
        Tokens and their log-probabilities, n each.

    Raises:
        PolicyError: The logits are not finite: the model has diverged.
    """
    scaled = logits if temperature == 1 else logits / temperature
    shifted = scaled - scaled.amax(-1, keepdim=True)
    exponentials = shifted.exp()
    cumulative = exponentials.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    # Rounding may put a number at the very end; the last token of positive probability is meant.
    last = torch.searchsorted(cumulative, total).clamp(max=logits.shape[-1] - 1)
    chosen = torch.searchsorted(cumulative, noise[:, None].to(total.dtype) * total, right=True)
    chosen = torch.minimum(chosen, last)
    told = shifted.gather(1, chosen)[:, 0] - exponentials.sum(-1).log()
    if not told.isfinite().all():
        raise PolicyError(
            "the model's logits are not finite, so nothing can be sampled: it has diverged; go back to an earlier "
            "checkpoint and lower the learning rate"
        )
    return chosen[:, 0], told
