"""IPNDM: Adams-Bashforth with the coefficients of even steps, whatever the steps (Zhang & Chen 2022, arXiv 2204.13902).

It is the paper's "improved PNDM" (section 3.3, table 1): the linear multistep of Liu et al. (arXiv 2202.09778) that
starts with lower orders in the place of Runge-Kutta steps.
"""

from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.multistep import combined
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register

_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@register("ipndm")
def ipndm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Combine the latest slopes, up to four; draws no noise. A step to 0 ends at the guess."""
    slopes: list[Tensor] = []  # the latest first
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        if target <= 0:
            return denoised
        slopes = [(x - denoised) / sigma, *slopes[: len(_WEIGHTS) - 1]]
        x = x + combined(slopes, _WEIGHTS[len(slopes) - 1]) * (target - sigma)
    return x
