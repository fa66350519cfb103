"""DPM-Solver++(2M): second order from one evaluation a step (Lu et al. 2022, arXiv 2211.01095, alg. 2)."""

import math
from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("dpmpp_2m")
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Extrapolate the denoised latents linearly in log sigma; the first and the last step are first order."""
    previous: Tensor | None = None
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        guess = denoised
        # Schedules of more steps than the table has entries repeat some, and a line needs two points.
        if previous is not None and target > 0 and sigmas[k - 1] > sigma:
            ratio = math.log(sigma / target) / math.log(sigmas[k - 1] / sigma)  # this step over the last one
            guess = previous.lerp(denoised, 1 + ratio / 2)
        x = guess.lerp(x, target / sigma)
        previous = denoised
    return x
