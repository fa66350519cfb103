"""SDE-DPM-Solver++(2M): `dpmpp_2m` on the reverse diffusion with noise (Lu et al. 2022, arXiv 2211.01095).

The paper derives it in its appendix on the SDE; as in ComfyUI the guess is extrapolated to the middle of a
step and all of the process' noise is kept (eta 1).
"""

import math
from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.dpmpp_2m import midpoint_guess
from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", noisy=True)
def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Sample every step's posterior given the extrapolated guess; the last step to 0 is the guess itself.

    For a clean value D the exact posterior at ``target`` given ``x`` at ``sigma`` is normal, with
    k = (target / sigma)^2: mean D + k (x - D), variance target^2 (1 - k).
    """
    previous: Tensor | None = None
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        guess = denoised if previous is None else midpoint_guess(previous, denoised, sigmas[k - 1 : k + 2])
        keep = (target / sigma) ** 2
        x = guess.lerp(x, keep)
        if target > 0:
            x = x.add(noise(), alpha=target * math.sqrt(1 - keep))
        previous = denoised
    return x
