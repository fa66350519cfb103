"""Random numbers of one sample: functions of its own seed only, drawn on the CPU so that devices agree.

ComfyUI draws the starting noise from the CPU generator seeded with the node's seed, and an ancestral
sampler's later noise (on the CPU) from a generator of its own seeded with the next integer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SEEDS = 1 << 64


def seeded(seed: int) -> torch.Generator:
    """Return a CPU generator; seeds beyond 64 bits wrap around."""
    return torch.Generator("cpu").manual_seed(seed % _SEEDS)


def starting_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Return unit normal float32 noise of the sample's latent shape [images, channels, height, width]."""
    return torch.randn(tuple(shape), generator=seeded(seed), dtype=torch.float32)


class StepNoise:
    """The later noise of an ancestral sampler for several samples, each from its own generator.

    Args:
        seeds: One per sample (its node's seed).
        shape: Latent shape of one sample [images, channels, height, width].
        device: Where the draws are wanted.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self._generators = [seeded(seed + 1) for seed in seeds]
        self._shape = tuple(shape)
        self._device = device

    def __call__(self) -> Tensor:
        """Draw the next noise, samples one after the other along the first axis."""
        draws = [torch.randn(self._shape, generator=g, dtype=torch.float32) for g in self._generators]
        return torch.cat(draws).to(self._device)
