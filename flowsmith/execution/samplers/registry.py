"""Samplers by the names that ComfyUI gives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from torch import Tensor

from flowsmith.execution.errors import ExecutionError

Denoise: TypeAlias = Callable[[Tensor, float], Tensor]
"""(noisy latents [n, c, h, w], sigma) -> the model's guess of the clean latents, same shape."""

DrawNoise: TypeAlias = Callable[[], Tensor]
"""A draw of unit normal noise in the latents' shape; every call gives the next one."""

Solve: TypeAlias = Callable[[Denoise, Tensor, Sequence[float], DrawNoise], Tensor]
"""(denoise, start at sigmas[0], sigmas descending, fresh noise) -> latents at sigmas[-1]."""


Own = TypeVar("Own", bound=Solve)


@dataclass(frozen=True)
class Sampler:
    """A solver with what it asks of its sigmas.

    Attributes:
        key: Names the solver with its options: equal keys, equal results.
        solve: The solver; calling the sampler calls it.
        noisy: Whether it draws noise on its way.
        discards_penultimate: It walks a schedule of one step more without the last sigma above 0
            (`sampling_sigmas` makes both).
    """

    key: str
    solve: Solve
    noisy: bool = False
    discards_penultimate: bool = False

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
        """Return the latents at ``sigmas[-1]``, from ``x`` [n, c, h, w] at ``sigmas[0]``; a step needs a length."""
        steps = [sigma for sigma, before in zip(sigmas, [None, *sigmas], strict=False) if sigma != before]
        return self.solve(denoise, x, steps, noise)


SAMPLERS: dict[str, Sampler] = {}


def register(*names: str, noisy: bool = False, discards_penultimate: bool = False) -> Callable[[Own], Own]:
    """Make a solver known under the names that flows use; see `Sampler` for the options."""

    def add(solve: Own) -> Own:
        for name in names:
            SAMPLERS[name] = Sampler(name, solve, noisy, discards_penultimate)
        return solve

    return add


def find_sampler(name: str) -> Sampler:
    """Return the sampler of that name.

    Raises:
        ExecutionError: There is none.
    """
    if name not in SAMPLERS:
        raise ExecutionError(f"sampler_name={name!r} cannot be run here; use one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
