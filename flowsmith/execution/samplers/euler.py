"""Euler's method on the probability-flow equation dx/dsigma = (x - denoised) / sigma."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("euler")
def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Take one straight step per sigma; draws no noise."""
    for sigma, target in pairwise(sigmas):
        # x + (x - denoised) / sigma * (target - sigma), written as the blend that it is
        x = denoise(x, sigma).lerp(x, target / sigma)
    return x
