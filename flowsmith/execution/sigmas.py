"""Noise levels that networks were trained on, as ComfyUI counts them.

Sigma is the noise's share of what is sampled. For variance-preserving training it is the noise's standard deviation
over the signal's, ``sqrt((1 - a) / a)`` with a the running product of ``1 - beta``; latents are sampled as
``clean + sigma * noise`` and scaled to unit variance for the network. For rectified flow they are
``(1 - sigma) * clean + sigma * noise`` with sigma from 0 to 1, and the network sees them as they are.

Between its steps a sampler asks for sigmas that are in no table; a network of discrete timesteps is then given the
*nearest integer* one (diffusers' Karras schedules pass fractions, which gives other images).
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

BetaSchedule = Literal["scaled_linear", "linear"]

_LEAST_SIGNAL = 4.8973451890853435e-08  # what ComfyUI puts for none, whose sigma would be infinite
_FLOW_TIMESTEPS = 1000.0  # a flow's timestep is sigma in thousandths


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The sigmas of variance-preserving training.

    Attributes:
        sigmas: float32, one per timestep that is used, ascending.
        log_sigmas: Their natural logarithms.
        stride: Training timesteps from one to the next; distilled networks know some of them only.
    """

    sigmas: Tensor
    log_sigmas: Tensor
    stride: int = 1

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
        return cls.from_signal(torch.cumprod(1 - betas, 0))

    @classmethod
    def from_signal(cls, signal: Tensor) -> "NoiseTable":
        """Build it from the signal's shares of the variance (float64, descending, above 0)."""
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
        nearest = int((self.log_sigmas - math.log(sigma)).abs().argmin())
        return nearest * self.stride + self.stride - 1

    def sigma(self, timestep: float) -> float:
        """Return the sigma of a fractional timestep, interpolated in log sigma."""
        place = (timestep - (self.stride - 1)) / self.stride
        place = min(max(place, 0.0), len(self.sigmas) - 1.0)
        low = math.floor(place)
        part = place - low
        high = min(low + 1, len(self.sigmas) - 1)
        return math.exp((1 - part) * float(self.log_sigmas[low]) + part * float(self.log_sigmas[high]))

    def after(self, share: float) -> float:
        """Return the sigma that is reached after a share of the way from noise (0) to picture (1)."""
        if share <= 0:
            return math.inf
        return self.sigma((1 - share) * (len(self.sigmas) * self.stride - 1)) if share < 1 else 0.0

    def scaled(self, x: Tensor, sigma: float) -> Tensor:
        """Return noisy latents as the network sees them."""
        return x / math.sqrt(sigma**2 + 1)

    def noised(self, latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """Add noise of level ``sigma``; at the table's greatest it is of the process' full variance."""
        whole = sigma > self.maximum or math.isclose(sigma, self.maximum, rel_tol=1e-5)
        return noise * (math.sqrt(1 + sigma**2) if whole else sigma) + latents

    def handed_on(self, x: Tensor, sigma: float) -> Tensor:
        """Return latents that still hold noise of ``sigma`` as they leave a sampling node."""
        return x

    def without_signal_at_the_end(self) -> "NoiseTable":
        """Return the table with its last signal brought to zero (Lin et al. 2023, arXiv 2305.08891, alg. 1)."""
        root = (1 / (self.sigmas.double() ** 2 + 1)).sqrt()
        signal = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        signal[-1] = _LEAST_SIGNAL
        return NoiseTable.from_signal(signal)

    def every(self, stride: int) -> "NoiseTable":
        """Return the table of each ``stride``-th timestep, the last one among them."""
        kept = slice(stride - 1, None, stride)
        return NoiseTable(self.sigmas[kept], self.log_sigmas[kept], stride)


@dataclass(frozen=True, eq=False)
class FlowTable:
    """The sigmas of a rectified flow (Esser et al. 2024, arXiv 2403.03206).

    Attributes:
        shift: s in sigma = s t / (1 + (s - 1) t), t from 0 to 1: how much of the time is spent at high noise
            (their equation 23; Flux.1 writes s as e^mu).
        sigmas: float32, ascending to 1, for even t.
    """

    shift: float
    sigmas: Tensor

    @classmethod
    def from_shift(cls, shift: float, steps: int = 1000) -> "FlowTable":
        """Build the table (Stable Diffusion 3: 3.0 and 1000; Flux.1 dev: e^1.15, schnell: 1.0, and 10000)."""
        time = torch.arange(1, steps + 1, dtype=torch.float32) / steps
        return cls(shift, shift * time / (1 + (shift - 1) * time))

    @property
    def minimum(self) -> float:
        """The least sigma of the table."""
        return float(self.sigmas[0])

    @property
    def maximum(self) -> float:
        """The greatest sigma of the table, 1."""
        return float(self.sigmas[-1])

    def timestep(self, sigma: float) -> float:
        """Return what the network is told: sigma itself, in thousandths."""
        return sigma * _FLOW_TIMESTEPS

    def sigma(self, timestep: float) -> float:
        """Return the sigma at a time in thousandths. It is `timestep`'s inverse for a shift of 1 only."""
        time = timestep / _FLOW_TIMESTEPS
        return self.shift * time / (1 + (self.shift - 1) * time)

    def after(self, share: float) -> float:
        """Return the sigma that is reached after a share of the way from noise (0) to picture (1)."""
        if share <= 0:
            return math.inf
        return self.sigma((1 - share) * _FLOW_TIMESTEPS) if share < 1 else 0.0

    def scaled(self, x: Tensor, sigma: float) -> Tensor:
        """Return noisy latents as the network sees them: as they are."""
        return x

    def noised(self, latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """Mix latents with noise of level ``sigma``."""
        return noise * sigma + latents * (1 - sigma)

    def handed_on(self, x: Tensor, sigma: float) -> Tensor:
        """Return latents that still hold noise of ``sigma`` in the form that `noised` takes, without noise, back."""
        return x / (1 - sigma) if sigma < 1 else x


Table: TypeAlias = NoiseTable | FlowTable
