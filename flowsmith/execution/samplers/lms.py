"""Linear multistep: Adams-Bashforth on sigmas of any spacing, fourth order, from one evaluation a step."""

from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.multistep import combined, integrals
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register

_HIGHEST_ORDER = 4


@register("lms")
def lms(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Continue the latest slopes as a polynomial in sigma; the order rises from 1, and a step to 0 is Euler's."""
    slopes: list[Tensor] = []  # the latest first
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: _HIGHEST_ORDER - 1]]
        if target <= 0:
            return denoised
        places = [sigmas[k - j] for j in range(len(slopes))]
        x = x + combined(slopes, integrals(places, sigma, target))
    return x
