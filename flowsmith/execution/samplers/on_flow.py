"""Samplers with noise on a rectified flow, whose latents are (1 - sigma) * clean + sigma * noise.

Divided by 1 - sigma they are clean + ratio * noise with ratio = sigma / (1 - sigma), for which the samplers are
written. At sigma 1 the ratio is infinite; it is taken a little before. Solvers of the flow itself need none of this:
its equation in sigma is the same.
"""

from collections.abc import Sequence

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, Sampler

_GREATEST = 0.9999


def sample_on_flow(
    sampler: Sampler, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise
) -> Tensor:
    """Return a flow's latents at ``sigmas[-1]``, from ``x`` [n, c, h, w] at ``sigmas[0]``."""
    if not sampler.noisy:
        return sampler(denoise, x, sigmas, noise)

    def denoise_ratio(y: Tensor, ratio: float) -> Tensor:
        sigma = sigma_at.get(ratio, ratio / (1 + ratio))
        return denoise(y * (1 - sigma), sigma)

    taken = [min(sigma, _GREATEST) for sigma in sigmas]
    ratios = [sigma / (1 - sigma) for sigma in taken]
    sigma_at = dict(zip(ratios, taken, strict=True))  # to the last bit
    return sampler(denoise_ratio, x / (1 - taken[0]), ratios, noise) * (1 - taken[-1])
