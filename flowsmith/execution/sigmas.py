"""Noise levels as ComfyUI computes them: the model's table of sigmas, and schedules over it.

Sigma is the noise's standard deviation over the signal's, ``sqrt((1 - a) / a)`` with a the running product of
``1 - beta``. Between its steps a sampler asks for sigmas that are not in the table; the network is then given
the *nearest integer* timestep (diffusers' Karras schedules pass fractions, which gives other images).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from flowsmith.execution.errors import ExecutionError

BetaSchedule = Literal["scaled_linear", "linear"]


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The sigmas that a network was trained on.

    Attributes:
        sigmas: float32, one per training timestep, ascending.
        log_sigmas: Their natural logarithms.
    """

    sigmas: Tensor
    log_sigmas: Tensor

    @classmethod
    def from_betas(
        cls,
        start: float = 0.00085,
        end: float = 0.012,
        steps: int = 1000,
        schedule: BetaSchedule = "scaled_linear",
    ) -> "NoiseTable":
        """Build the table of a variance-preserving process (the defaults are Stable Diffusion's)."""
        power = 2 if schedule == "scaled_linear" else 1
        betas = torch.linspace(start ** (1 / power), end ** (1 / power), steps, dtype=torch.float64) ** power
        signal = torch.cumprod(1 - betas, 0)
        sigmas = ((1 - signal) / signal).sqrt()
        return cls(sigmas.float(), sigmas.log().float())

    @property
    def minimum(self) -> float:
        """The least sigma of the table."""
        return float(self.sigmas[0])

    @property
    def maximum(self) -> float:
        """The greatest sigma of the table."""
        return float(self.sigmas[-1])

    def timestep(self, sigma: float) -> int:
        """Return the training timestep whose log sigma is nearest."""
        return int((self.log_sigmas - math.log(sigma)).abs().argmin())

    def sigma(self, timestep: float) -> float:
        """Return the sigma of a fractional timestep, interpolated in log sigma."""
        timestep = min(max(timestep, 0.0), len(self.sigmas) - 1.0)
        low = math.floor(timestep)
        part = timestep - low
        high = min(low + 1, len(self.sigmas) - 1)
        return math.exp((1 - part) * float(self.log_sigmas[low]) + part * float(self.log_sigmas[high]))


def normal(table: NoiseTable, steps: int) -> list[float]:
    """Evenly spaced timesteps, from the last of the table to its first."""
    last = float(table.timestep(table.maximum))
    return [table.sigma(t) for t in torch.linspace(last, 0.0, steps).tolist()] + [0.0]


def karras(table: NoiseTable, steps: int) -> list[float]:
    """Evenly spaced seventh roots of sigma (Karras et al. 2022, arXiv 2206.00364, equation 5)."""
    rho = 7.0
    low, high = table.minimum ** (1 / rho), table.maximum ** (1 / rho)
    return [(high + part * (low - high)) ** rho for part in torch.linspace(0, 1, steps).tolist()] + [0.0]


def simple(table: NoiseTable, steps: int) -> list[float]:
    """Every n-th entry of the table, counted from its noisy end."""
    stride = len(table.sigmas) / steps
    return [float(table.sigmas[-(1 + int(k * stride))]) for k in range(steps)] + [0.0]


def exponential(table: NoiseTable, steps: int) -> list[float]:
    """Evenly spaced logarithms of sigma, from the greatest of the table to its least."""
    low, high = math.log(table.minimum), math.log(table.maximum)
    return [math.exp(high + part * (low - high)) for part in torch.linspace(0, 1, steps).tolist()] + [0.0]


def sgm_uniform(table: NoiseTable, steps: int) -> list[float]:
    """Evenly spaced timesteps as `normal` has them, but the first one counts as one step from the clean end."""
    last = float(table.timestep(table.maximum))
    return [table.sigma(t) for t in torch.linspace(last, 0.0, steps + 1).tolist()[:-1]] + [0.0]


def beta(table: NoiseTable, steps: int) -> list[float]:
    """Timesteps at even quantiles of Beta(0.6, 0.6), which is densest at both ends.

    Source: Lee et al. 2024, "Beta Sampling is All You Need" (arXiv 2407.12173), section 4. Quantiles start at 1
    and stop short of 0, and are rounded to entries of the table. Entries that repeat, which happens first at
    about 140 steps, are used once: fewer steps than asked.
    """
    from scipy.special import betaincinv  # scipy.stats.beta.ppf, in a third of a second less of importing

    last = len(table.sigmas) - 1
    quantiles = betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, steps, endpoint=False))
    timesteps = dict.fromkeys(np.rint(quantiles * last).astype(int).tolist())
    return [float(table.sigmas[t]) for t in timesteps] + [0.0]


SCHEDULERS: dict[str, Callable[[NoiseTable, int], list[float]]] = {
    "normal": normal,
    "karras": karras,
    "simple": simple,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "beta": beta,
}


def sampling_sigmas(
    table: NoiseTable, scheduler: str, steps: int, denoise: float = 1.0, discard_penultimate: bool = False
) -> list[float]:
    """Return the sigmas that a KSampler node steps through, descending to 0.

    Args:
        table: The network's own noise levels.
        scheduler: Name of a schedule.
        steps: Number of steps taken, at least 1.
        denoise: Share of the whole way that is taken, in (0, 1]; below 1 a schedule of
            ``int(steps / denoise)`` steps is made and its last ``steps`` are walked.
            At 0 nothing is left to do: an empty list.
        discard_penultimate: Make the schedule one step longer and leave out its last sigma above 0, as
            ComfyUI does for some samplers (`Sampler.discards_penultimate` says for which).

    Raises:
        ExecutionError: Unknown scheduler, or fewer than one step.
    """
    if scheduler not in SCHEDULERS:
        raise ExecutionError(
            f"scheduler={scheduler!r} cannot be run here; use one of {', '.join(SCHEDULERS)}"
        )
    if steps < 1:
        raise ExecutionError(f"steps={steps}: nothing would be sampled; use 1 or more")
    if not denoise > 0:
        return []
    whole = steps if denoise > 0.9999 else int(steps / denoise)
    sigmas = SCHEDULERS[scheduler](table, whole + 1 if discard_penultimate else whole)
    if discard_penultimate:
        del sigmas[-2]
    return sigmas[-(steps + 1) :]
