"""Estimators of KL(policy || reference) from sampled tokens (Schulman, "Approximating KL divergence")."""

from typing import Literal

from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]
KLPlace = Literal["loss", "reward"]


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, estimator: KLEstimator = "k3") -> Tensor:
    """Estimate the divergence at each token.

    With d = log pi - log pi_ref: ``k1`` = d (unbiased, may be negative), ``k2`` = d^2 / 2 (biased, but its
    gradient is not), ``k3`` = exp(-d) - 1 + d (unbiased, never negative).

    Args:
        logprobs: Of the policy, any shape.
        reference_logprobs: Of the reference, same shape, no gradient.
        estimator: Which.

    Returns:
        Estimates in nats, same shape.
    """
    difference = logprobs - reference_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    return (-difference).expm1() + difference


def masked_kl(
    logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, estimator: KLEstimator = "k3"
) -> Tensor:
    """Estimate the divergence at each chosen token; 0 elsewhere, whatever stands there.

    Args:
        logprobs: Of the policy, B x T.
        reference_logprobs: Of the reference, B x T; treated as constant.
        mask: True at chosen tokens, B x T.
        estimator: Which.

    Returns:
        Estimates in nats, B x T.
    """
    # Before the exponential: after it, an overflow at a masked place would send NaN back.
    return kl_estimate(logprobs.where(mask, 0.0), reference_logprobs.detach().where(mask, 0.0), estimator)


def kl_penalty(
    old_logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, estimator: KLEstimator = "k1"
) -> Tensor:
    """Sum each sequence's divergence, to be subtracted, times its weight, from the sequence's reward.

    Args:
        old_logprobs: Of the policy that sampled, B x T.
        reference_logprobs: Of the reference, B x T.
        mask: True at chosen tokens, B x T.
        estimator: ``k1``, whose gradient through the reward is the divergence's.

    Returns:
        Nats, one a sequence, B, without gradient; 0 where nothing was chosen.
    """
    return masked_kl(old_logprobs.detach(), reference_logprobs, mask, estimator).sum(1)
