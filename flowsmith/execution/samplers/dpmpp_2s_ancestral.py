"""DPM-Solver++(2S) with ancestral noise (Lu et al. 2022, arXiv 2211.01095, algorithm 1, its middle half-way)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.euler_ancestral import split_step
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


def single_step(denoise: Denoise, x: Tensor, sigma: float, target: float) -> Tensor:
    """Step by the guess in the middle, half-way in log sigma; a step to 0 ends at the first guess."""
    denoised = denoise(x, sigma)
    if target <= 0 or target == sigma:
        return denoised.lerp(x, target / sigma)
    middle = math.sqrt(sigma * target)
    between = denoise(denoised.lerp(x, middle / sigma), middle)
    return between.lerp(x, target / sigma)


@register("dpmpp_2s_ancestral", noisy=True)
def dpmpp_2s_ancestral(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Step to below the next sigma, and come back with fresh noise."""
    for sigma, target in pairwise(sigmas):
        down, up = split_step(sigma, target)
        x = single_step(denoise, x, sigma, down)
        if target > 0:
            x = x.add(noise(), alpha=up)
    return x
