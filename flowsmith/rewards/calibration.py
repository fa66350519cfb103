"""From disagreement to doubt: one factor that makes mean ± std cover what a standard deviation should.

Members share data and architecture, so they agree more than they are right. The factor is a quantile of
|error| / disagreement on rows that no member trained on (split conformal prediction), so it assumes no shape of the
errors. What it covers is a rendered score, whose own noise (the seed) is therefore part of the doubt.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowsmith.rewards.bootstrap import unit_interval

ONE_SIGMA = math.erf(1 / math.sqrt(2))
"""Probability 0.6827 that a normal variable lies within one standard deviation."""

_LEAST = 1e-6  # members that agree exactly would divide by zero


def coverage(mean: Tensor, std: Tensor, truth: Tensor) -> float:
    """Return the share of rows [n] whose truth lies within mean ± std."""
    return float(((truth - mean).abs() <= std).double().mean())


def fit_scale(mean: Tensor, disagreement: Tensor, truth: Tensor) -> float:
    """Return the factor by which disagreement covers `ONE_SIGMA` of the rows.

    Args:
        mean: Ensemble means [n] on held-out rows, n >= 1.
        disagreement: Standard deviations over members [n].
        truth: Scores [n], same unit.
    """
    ratio = (truth - mean).abs().double() / disagreement.double().clamp(min=_LEAST)
    # The (n + 1) correction of split conformal prediction: without it small n would cover too little.
    rank = min(math.ceil((len(ratio) + 1) * ONE_SIGMA), len(ratio))
    return float(ratio.sort().values[rank - 1])


def held_out_coverage(mean: Tensor, disagreement: Tensor, truth: Tensor, prompt_ids: Sequence[str]) -> float:
    """Return the coverage of calibrated mean ± std, each half of the prompts scaled by the other half.

    Measured on the rows that fitted the factor, coverage would be right by construction. nan with one prompt.
    """
    half = torch.tensor(
        [unit_interval("calibration", prompt) < 0.5 for prompt in prompt_ids], device=mean.device
    )
    if half.all() or not half.any():
        return float("nan")
    covered = torch.zeros_like(mean, dtype=torch.bool)
    for test in (half, ~half):
        scale = fit_scale(mean[~test], disagreement[~test], truth[~test])
        covered[test] = (truth[test] - mean[test]).abs() <= scale * disagreement[test]
    return float(covered.double().mean())
