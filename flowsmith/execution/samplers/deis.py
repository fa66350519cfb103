"""DEIS: slopes continued as a polynomial in the time of a variance-preserving process (Zhang & Chen 2022).

arXiv 2204.13902, section 3.2, "tAB-DEIS": like `lms`, but in a variable in which slopes are straighter. The process is
that of Song et al. (2021, arXiv 2011.13456), whose sigma after a time t is sqrt(exp(d t^2 / 2 + m t) - 1); d and m are
chosen so that the given sigmas span the times from 0.001 to 1, which is how ComfyUI calls it.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from flowsmith.execution.samplers.multistep import combined, integrals
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register

_HIGHEST_ORDER = 3
_FIRST_TIME = 1e-3


def process_time(least: float, greatest: float) -> Callable[[float], float]:
    """Return the time at which the process reaches a sigma, between ``least`` and ``greatest`` > 0."""
    low, high = math.log(least**2 + 1), math.log(greatest**2 + 1)
    slope = 2 * (low / _FIRST_TIME - high) / (_FIRST_TIME - 1)
    start = high - slope / 2

    def time(sigma: float) -> float:
        return (math.sqrt(start**2 + 2 * slope * math.log(sigma**2 + 1)) - start) / slope

    return time


@register("deis")
def deis(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Continue up to three slopes; the order rises from 1, and a step to 0 is Euler's."""
    time = process_time(min(sigma for sigma in sigmas if sigma > 0), max(sigmas))
    slopes: list[Tensor] = []  # the latest first
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        if target <= 0:
            return denoised
        slopes = [(x - denoised) / sigma, *slopes[: _HIGHEST_ORDER - 1]]
        places = [time(sigmas[k - j]) for j in range(len(slopes))]
        x = x + combined(slopes, integrals(places, sigma, target, time))
    return x
