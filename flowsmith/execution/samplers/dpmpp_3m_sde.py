"""SDE-DPM-Solver++(3M): the guess continued as a parabola in log sigma, on the reverse diffusion with noise.

Lu et al. 2022, arXiv 2211.01095, appendix on multistep solvers of third order. As in their code and in ComfyUI the
second difference stands where the second derivative should, which is twice as much: what is gained over `dpmpp_2m_sde`
is a smaller error, not an order.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", noisy=True)
def dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise, eta: float = 1.0
) -> Tensor:
    """Step through all sigmas; the order rises from 1, and a step to 0 ends at the guess.

    Args:
        denoise: Guesses the clean latents.
        x: Start.
        sigmas: Descending.
        noise: Fresh noise.
        eta: Share of the process' noise that is kept; 0 solves the flow.
    """
    guesses: list[Tensor] = []  # the latest first
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        guesses = [denoise(x, sigma), *guesses[:2]]
        if target <= 0:
            return guesses[0]
        h = math.log(sigma / target)
        decay = h * (1 + eta)
        x = guesses[0].lerp(x, math.exp(-decay))
        back = [math.log(sigmas[k - j - 1] / sigmas[k - j]) / h for j in range(len(guesses) - 1)]
        slopes = [(guesses[j] - guesses[j + 1]) / back[j] for j in range(len(guesses) - 1)]
        first = math.expm1(-decay) / decay + 1  # integrals of e^(v - 1) v and, but for the sign, v^2 / 2
        if len(slopes) == 1:
            x = x.add(slopes[0], alpha=first)
        elif slopes:
            bend = (slopes[0] - slopes[1]) / (back[0] + back[1])
            x = x.add(slopes[0] + bend * back[0], alpha=first).sub(bend, alpha=first / decay - 0.5)
        if eta:
            x = x.add(noise(), alpha=target * math.sqrt(-math.expm1(-2 * h * eta)))
    return x
