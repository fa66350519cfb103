"""Heun's method, second order from two evaluations a step (Karras et al. 2022, arXiv 2206.00364, alg. 1)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("heun")
def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Average the slopes at both ends of a step; a step to 0, where no slope exists, is Euler's."""
    for sigma, target in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        if target > 0:
            end = x + slope * (target - sigma)
            slope = (slope + (end - denoise(end, target)) / target) / 2
        x = x + slope * (target - sigma)
    return x
