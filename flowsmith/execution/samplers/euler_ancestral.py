"""Euler's method that overshoots to a lower noise level and comes back with fresh noise."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


def split_step(sigma: float, target: float, eta: float = 1.0) -> tuple[float, float]:
    """Return (down, up): step to ``down``, then add noise of ``up``, so that down^2 + up^2 = target^2.

    ``up`` is the standard deviation of the exact posterior of the variance-exploding process between both, or the
    share ``eta`` of it.
    """
    up = min(target, eta * math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2))
    return math.sqrt(max(target**2 - up**2, 0.0)), up


# Steps of DDPM (Ho et al. 2020, arXiv 2006.11239, equations 6 and 7) are these in variance-preserving latents: both
# draw from the posterior given the guess.
@register("euler_ancestral", "ddpm", noisy=True)
def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Step down and renoise at every sigma but the last, where the denoised latents are the answer."""
    for sigma, target in pairwise(sigmas):
        down, up = split_step(sigma, target)
        x = denoise(x, sigma).lerp(x, down / sigma)
        if target > 0:
            x = x.add(noise(), alpha=up)
    return x
