"""The sampler and the trainer compute the same probabilities by different ways: how far apart they come out."""

from typing import Literal

from torch import Tensor

from flowsmith.objectives.metrics import Metrics

Correction = Literal["none", "token", "sequence"]


def mismatch(logprobs: Tensor, sampled: Tensor, mask: Tensor) -> tuple[Metrics, Tensor]:
    """Compare before any update, when both are the same policy.

    Args:
        logprobs: As training computes them, B x T.
        sampled: As the sampler computed them, B x T.
        mask: True at chosen tokens that the policy of now has sampled, B x T.

    Returns:
        As (sum, count): ``sampling/kl``, the k3 estimate of KL(sampler || trainer) in nats a token, and
        ``sampling/sampling_logp_difference/mean``, absolute; then its largest value, 0 where nothing is compared.
    """
    difference = (logprobs - sampled).detach().masked_fill(~mask, 0.0)
    count = mask.sum()
    metrics: Metrics = {
        "sampling/kl": ((difference.expm1() - difference).sum(), count),
        "sampling/sampling_logp_difference/mean": (difference.abs().sum(), count),
    }
    return metrics, difference.abs().amax()


def correction_weights(
    logprobs: Tensor, sampled: Tensor, mask: Tensor, level: Literal["token", "sequence"], cap: float
) -> Tensor:
    """Return truncated importance weights ``min(pi_trainer / pi_sampler, cap)`` (Ionides, 2008).

    Args:
        logprobs: As training computes them, B x T.
        sampled: As the sampler computed them, B x T.
        mask: True at chosen tokens that the policy of now has sampled, B x T; elsewhere the weight is 1.
        level: One a token (B x T), or the product over a sequence's tokens (B x 1).
        cap: Largest weight, >= 1; truncation bounds the variance.
    """
    difference = (logprobs - sampled).detach().masked_fill(~mask, 0.0)
    if level == "sequence":
        difference = difference.sum(1, keepdim=True)
    return difference.exp().clamp(max=cap)


def weight_metrics(weights: Tensor, mask: Tensor) -> Metrics:
    """Return the mean of weights, one a token or a sequence, where the policy of now has sampled (mask B x T)."""
    units = mask if weights.shape == mask.shape else mask.any(1, keepdim=True)
    return {"sampling/importance_sampling_ratio/mean": (weights.masked_fill(~units, 0.0).sum(), units.sum())}
