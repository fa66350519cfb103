"""The clipped surrogate: stop pushing once the policy has moved far enough in the good direction."""

from typing import NamedTuple

import torch
from torch import Tensor


class Surrogate(NamedTuple):
    """Loss and what was clipped, each in the shape of the ratio."""

    loss: Tensor
    """To be minimised."""
    low: Tensor
    """True where a bad token had already become unlikely enough: no gradient."""
    high: Tensor
    """True where a good token had already become likely enough: no gradient."""


def clipped_surrogate(
    log_ratio: Tensor, advantages: Tensor, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Surrogate:
    """Return ``-min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A)`` (PPO, arXiv 1707.06347).

    Args:
        log_ratio: Logarithm of the importance ratio, B x T or B x 1.
        advantages: One a sequence, B x 1.
        epsilon_low: How far the ratio of a bad token may fall, in 0..1.
        epsilon_high: How far that of a good token may rise; larger than ``epsilon_low`` keeps rare tokens
            alive (DAPO, arXiv 2503.14476).
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    return Surrogate(
        loss=-torch.minimum(ratio * advantages, clipped * advantages),
        low=(ratio < 1 - epsilon_low) & (advantages < 0),
        high=(ratio > 1 + epsilon_high) & (advantages > 0),
    )
