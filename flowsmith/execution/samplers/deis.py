"""DEIS: slopes continued as a polynomial in the time of a variance-preserving process (Zhang & Chen 2022).

arXiv 2204.13902, section 3.2, "tAB-DEIS": like `lms`, but in a variable in which slopes are straighter. The process is
that of Song et al. (2021, arXiv 2011.13456), whose sigma after a time t is sqrt(exp(d t^2 / 2 + m t) - 1); d and m are
such that sigma is 0.002 at the time 0.001 and 80 at 1, whatever the network's own process was.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.multistep import combined, integrals
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register

_HIGHEST_ORDER = 3
_FIRST_TIME = 1e-3
_FIRST, _LAST = math.log(0.002**2 + 1), math.log(80.0**2 + 1)
_SLOPE = 2 * (_FIRST / _FIRST_TIME - _LAST) / (_FIRST_TIME - 1)
_START = _LAST - _SLOPE / 2


def process_time(sigma: float) -> float:
    """Return the time at which the process reaches a sigma."""
    return (math.sqrt(_START**2 + 2 * _SLOPE * math.log(sigma**2 + 1)) - _START) / _SLOPE


@register("deis")
def deis(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Continue up to three slopes; the order rises from 1, and a step to 0 is Euler's."""
    slopes: list[Tensor] = []  # the latest first
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        if target <= 0:
            return denoised
        slopes = [(x - denoised) / sigma, *slopes[: _HIGHEST_ORDER - 1]]
        places = [process_time(sigmas[k - j]) for j in range(len(slopes))]
        x = x + combined(slopes, integrals(places, sigma, target, process_time))
    return x
