"""DPM-Solver++(2M): second order from one evaluation a step (Lu et al. 2022, arXiv 2211.01095, alg. 2)."""

import math
from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


def midpoint_guess(previous: Tensor, denoised: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Extrapolate the guesses at the first two of three sigmas to the middle of the following step.

    Args:
        previous: Guess at ``sigmas[0]`` [n, c, h, w].
        denoised: Guess at ``sigmas[1]``, same shape.
        sigmas: Three, descending; a line needs two points and the logarithm a last one above 0, so where they
            are missing (the last step; schedules of more steps than the table has entries) the guess stays.

    Returns:
        The guess half-way in log sigma between ``sigmas[1]`` and ``sigmas[2]``, linear in log sigma.
    """
    earlier, sigma, target = sigmas
    if not earlier > sigma or target <= 0:
        return denoised
    ratio = math.log(sigma / target) / math.log(earlier / sigma)  # the coming step over the last one
    return previous.lerp(denoised, 1 + ratio / 2)


@register("dpmpp_2m")
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Extrapolate the denoised latents linearly in log sigma; the first and the last step are first order."""
    previous: Tensor | None = None
    for k in range(len(sigmas) - 1):
        denoised = denoise(x, sigmas[k])
        guess = denoised if previous is None else midpoint_guess(previous, denoised, sigmas[k - 1 : k + 2])
        x = guess.lerp(x, sigmas[k + 1] / sigmas[k])
        previous = denoised
    return x
