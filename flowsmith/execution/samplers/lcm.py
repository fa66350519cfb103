"""Sampling of consistency models: guess, renoise, guess (Song et al. 2023, arXiv 2303.01469, algorithm 1)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from flowsmith.execution.samplers.registry import Denoise, DrawNoise, register


@register("lcm", noisy=True)
def lcm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    """Take each guess as the picture, and noise it anew to the next sigma."""
    for sigma, target in pairwise(sigmas):
        x = denoise(x, sigma)
        if target > 0:
            x = x.add(noise(), alpha=target)
    return x
