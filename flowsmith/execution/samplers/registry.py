"""Samplers by the names that ComfyUI gives them."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

from flowsmith.execution.errors import ExecutionError

Denoise: TypeAlias = Callable[[Tensor, float], Tensor]
"""(noisy latents [n, c, h, w], sigma) -> the model's guess of the clean latents, same shape."""

DrawNoise: TypeAlias = Callable[[], Tensor]
"""A draw of unit normal noise in the latents' shape; every call gives the next one."""

Sampler: TypeAlias = Callable[[Denoise, Tensor, Sequence[float], DrawNoise], Tensor]
"""(denoise, start at sigmas[0], sigmas descending, fresh noise) -> latents at sigmas[-1]."""

SAMPLERS: dict[str, Sampler] = {}


def register(name: str) -> Callable[[Sampler], Sampler]:
    """Make a sampler known under the name that flows use."""

    def add(sampler: Sampler) -> Sampler:
        SAMPLERS[name] = sampler
        return sampler

    return add


def find_sampler(name: str) -> Sampler:
    """Return the sampler of that name.

    Raises:
        ExecutionError: There is none.
    """
    if name not in SAMPLERS:
        raise ExecutionError(f"sampler_name={name!r} cannot be run here; use one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
