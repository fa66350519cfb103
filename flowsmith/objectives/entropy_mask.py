"""Learn only where the policy had a choice: the share of tokens with the highest entropy (arXiv 2506.01939)."""

import math

from torch import Tensor


def entropy_threshold(entropies: Tensor, share: float) -> float:
    """Return the entropy that the highest ``share`` of tokens reach.

    Args:
        entropies: Of all chosen tokens of the update, of all processes, 1-D.
        share: In 0..1, above 0; rounded up to whole tokens.

    Returns:
        The least entropy among them in nats; 0 where there are no tokens.
    """
    if not len(entropies):
        return 0.0
    count = min(len(entropies), max(1, math.ceil(share * len(entropies))))
    return float(entropies.detach().kthvalue(len(entropies) - count + 1).values)


def top_entropy_mask(entropy: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """Mark the chosen tokens (``mask``) whose ``entropy`` reaches the threshold; all B x T."""
    return mask & (entropy.detach() >= threshold)
