"""RES: a second-order exponential multistep rule (Zhang et al. 2023, "Refined Exponential Solver", arXiv 2308.02157).

In l = -log sigma the flow is dx/dl = D(l) - x, whose linear part is solved exactly. The guess D is continued as a line
through the two latest ones and integrated against e^(u - h), unlike `dpmpp_2m`, which takes the line's middle.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("res_multistep")
def res_multistep(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Step through all sigmas; the first step and one to 0 are first order."""
    previous: Tensor | None = None
    for k in range(len(sigmas) - 1):
        sigma, target = sigmas[k], sigmas[k + 1]
        denoised = denoise(x, sigma)
        straight = denoised.lerp(x, target / sigma)
        if previous is None or target <= 0:
            x = straight
        else:
            h, back = math.log(sigma / target), math.log(sigmas[k - 1] / sigma)
            moment = 1 + math.expm1(-h) / h  # integral over v in [0, 1] of h e^(-h (1 - v)) v
            x = straight.add(denoised - previous, alpha=moment * h / back)
        previous = denoised
    return x
