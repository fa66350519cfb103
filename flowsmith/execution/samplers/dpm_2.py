"""DPM-Solver-2 as Karras et al. write it (2022, arXiv 2206.00364, appendix B.3): the midpoint rule in log sigma."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.euler_ancestral import split_step
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


def midpoint_step(denoise: Denoise, x: Tensor, sigma: float, target: float) -> Tensor:
    """Step by the slope in the middle, half-way in log sigma; a step to 0, which has no middle, is Euler's."""
    slope = (x - denoise(x, sigma)) / sigma
    if target <= 0 or target == sigma:
        return x + slope * (target - sigma)
    middle = math.sqrt(sigma * target)
    between = x + slope * (middle - sigma)
    return x + (between - denoise(between, middle)) / middle * (target - sigma)


@register("dpm_2", discards_penultimate=True)
def dpm_2(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Take midpoint steps; draws no noise."""
    for sigma, target in pairwise(sigmas):
        x = midpoint_step(denoise, x, sigma, target)
    return x


@register("dpm_2_ancestral", noisy=True, discards_penultimate=True)
def dpm_2_ancestral(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Take midpoint steps to below the next sigma, and come back with fresh noise."""
    for sigma, target in pairwise(sigmas):
        down, up = split_step(sigma, target)
        x = midpoint_step(denoise, x, sigma, down)
        if target > 0:
            x = x.add(noise(), alpha=up)
    return x
