"""DPM-Solver++ on the reverse diffusion, with a guess in the middle of each step (Lu et al. 2022, arXiv 2211.01095).

The middle lies half-way in log sigma and is reached with noise of its own; as in ComfyUI the whole step's noise goes on
from it: both are increments of one Brownian path in sigma.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.euler_ancestral import split_step
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("dpmpp_sde", "dpmpp_sde_gpu", noisy=True)
def dpmpp_sde(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise, eta: float = 1.0
) -> Tensor:
    """Step to below the middle and the next sigma, each time coming back with noise; a step to 0 has neither.

    Args:
        denoise: Guesses the clean latents.
        x: Start.
        sigmas: Descending.
        noise: Fresh noise.
        eta: Share of the process' noise that is kept; 0 is the second-order solver of the flow.
    """
    for sigma, target in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if target <= 0:
            return denoised
        middle = math.sqrt(sigma * target)
        first, second = (noise(), noise()) if eta else (x, x)
        early = (sigma - middle) / (sigma - target)  # of the path's time
        whole = first * math.sqrt(early) + second * math.sqrt(1 - early)
        down, up = split_step(sigma, middle, eta)
        between = denoise(denoised.lerp(x, down / sigma).add(first, alpha=up), middle)
        down, up = split_step(sigma, target, eta)
        x = between.lerp(x, down / sigma).add(whole, alpha=up)
    return x
