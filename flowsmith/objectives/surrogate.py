"""Surrogates: what a token's loss is, given how far the policy has moved from the one that sampled it.

Each takes the logarithm of the importance ratio r (B x T, or B x 1 for one a sequence) and the advantages A
(B x 1), and says what it clipped: a name to the places, in the shape of the ratio.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

SurrogateKind = Literal["clip", "dual_clip", "cispo", "sapo"]


class Surrogate(NamedTuple):
    """Loss to be minimised, and where it was clipped."""

    loss: Tensor
    clipped: dict[str, Tensor]


def clipped_surrogate(
    log_ratio: Tensor, advantages: Tensor, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Surrogate:
    """Return ``-min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A)`` (PPO, arXiv 1707.06347).

    Stop pushing once the policy has moved far enough in the good direction: ``low`` marks bad tokens that are
    unlikely enough, ``high`` good tokens that are likely enough; neither has a gradient.

    Args:
        log_ratio: Logarithm of the importance ratio, B x T or B x 1.
        advantages: One a sequence, B x 1.
        epsilon_low: How far the ratio of a bad token may fall, in 0..1.
        epsilon_high: How far that of a good token may rise; larger than ``epsilon_low`` keeps rare tokens
            alive (DAPO, arXiv 2503.14476).
    """
    ratio = log_ratio.exp()
    kept = ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    clipped = {
        "low": (ratio < 1 - epsilon_low) & (advantages < 0),
        "high": (ratio > 1 + epsilon_high) & (advantages > 0),
    }
    return Surrogate(-torch.minimum(ratio * advantages, kept * advantages), clipped)


def dual_clipped_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    bound: float = 3.0,
) -> Surrogate:
    """Clip as `clipped_surrogate`, and bad tokens also at ``r = bound`` (arXiv 1912.09729).

    A bad token that became much likelier would otherwise push back without limit. ``dual`` marks these; they
    have no gradient.

    Args:
        log_ratio: Logarithm of the importance ratio, B x T or B x 1.
        advantages: One a sequence, B x 1.
        epsilon_low: As there.
        epsilon_high: As there.
        bound: Largest ratio that counts for a bad token, > 1.
    """
    loss, clipped = clipped_surrogate(log_ratio, advantages, epsilon_low, epsilon_high)
    bad = advantages < 0
    dual = bad & (log_ratio > math.log(bound))
    return Surrogate(
        torch.where(bad, torch.minimum(loss, -bound * advantages), loss), clipped | {"dual": dual}
    )


def cispo_surrogate(
    log_ratio: Tensor,
    logprobs: Tensor,
    advantages: Tensor,
    epsilon_low: float = 1.0,
    epsilon_high: float = 4.0,
) -> Surrogate:
    """Return ``-w A log pi`` with the weight ``w = clip(r)`` held constant (CISPO, arXiv 2506.13585).

    Every token keeps a gradient, also where its weight was clipped, which is what ``low`` and ``high`` mark.

    Args:
        log_ratio: Logarithm of the importance ratio, B x T or B x 1.
        logprobs: Of the policy, B x T.
        advantages: One a sequence, B x 1.
        epsilon_low: The weight is at least 1 - this; 1 sets no lower bound, as in the paper.
        epsilon_high: The weight is at most 1 + this.
    """
    ratio = log_ratio.detach().exp()
    weight = ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    clipped = {"low": ratio < 1 - epsilon_low, "high": ratio > 1 + epsilon_high}
    return Surrogate(-weight * advantages * logprobs, clipped)


def sapo_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
) -> Surrogate:
    """Return ``-(4 / t) sigmoid(t (r - 1)) A``, a gate instead of a clip (SAPO, arXiv 2511.20347).

    The gradient is that of ``-r A`` at r = 1 and fades on both sides; nothing is clipped.

    Args:
        log_ratio: Logarithm of the importance ratio, B x T or B x 1.
        advantages: One a sequence, B x 1.
        temperature_positive: t of good tokens, > 0; a larger one fades faster.
        temperature_negative: t of the others.
    """
    temperature = torch.full_like(advantages, temperature_negative)
    temperature = temperature.masked_fill(advantages > 0, temperature_positive)
    gate = torch.sigmoid(temperature * (log_ratio.exp() - 1)) * (4 / temperature)
    return Surrogate(-gate * advantages, {})
