"""Nodes that make SIGMAS."""

import math

import numpy as np

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.schedules import (
    beta_quantiles,
    karras_between,
    polyexponential_between,
    sampling_sigmas,
)

_TURBO_STEPS = 10  # timesteps that SD-Turbo was distilled for, at even distances from the last one
_ALIGNED = {
    "SD1": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
            0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "SDXL": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
             0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
}  # fmt: skip
"""Noise levels for ten steps as Sabour et al. publish them (2024, arXiv 2404.14507)."""


@node("BasicScheduler")
class BasicScheduler:
    """A schedule by its name, over a model's own noise levels."""

    model: DiffusionModel
    scheduler: str
    steps: int
    denoise: float = 1.0

    def run(self, library: ModelLibrary) -> Outputs:
        """Return its noise levels."""
        return (sampling_sigmas(self.model.table, self.scheduler, self.steps, self.denoise),)


@node("KarrasScheduler")
class KarrasScheduler:
    """Evenly spaced rho-th roots."""

    steps: int
    sigma_max: float
    sigma_min: float
    rho: float = 7.0

    def run(self, library: ModelLibrary) -> Outputs:
        """Return its noise levels."""
        return (tuple(karras_between(self.steps, self.sigma_min, self.sigma_max, self.rho)),)


@node("ExponentialScheduler")
class ExponentialScheduler:
    """Evenly spaced logarithms."""

    steps: int
    sigma_max: float
    sigma_min: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Return its noise levels."""
        return (tuple(polyexponential_between(self.steps, self.sigma_min, self.sigma_max)),)


@node("BetaSamplingScheduler")
class BetaSamplingScheduler:
    """Timesteps at even quantiles of a Beta distribution."""

    model: DiffusionModel
    steps: int
    alpha: float = 0.6
    beta: float = 0.6

    def run(self, library: ModelLibrary) -> Outputs:
        """Return its noise levels."""
        return (tuple(beta_quantiles(self.model.table, self.steps, self.alpha, self.beta)),)


@node("SDTurboScheduler")
class SDTurboScheduler:
    """The timesteps that SD-Turbo and SDXL-Turbo were distilled for (Sauer et al. 2023, arXiv 2311.17042)."""

    model: DiffusionModel
    steps: int
    denoise: float = 1.0

    def run(self, library: ModelLibrary) -> Outputs:
        """Return their noise levels."""
        start = _TURBO_STEPS - int(_TURBO_STEPS * self.denoise)
        timesteps = [1000 - 100 * k - 1 for k in range(_TURBO_STEPS)][start : start + self.steps]
        return ((*(self.model.table.sigma(timestep) for timestep in timesteps), 0.0),)


@node("AlignYourStepsScheduler")
class AlignYourStepsScheduler:
    """Noise levels that were optimised for a family of models; for other numbers of steps between them in log."""

    model_type: str
    steps: int
    denoise: float = 1.0

    def run(self, library: ModelLibrary) -> Outputs:
        """Return the noise levels.

        Raises:
            ExecutionError: The family makes no pictures.
        """
        if self.model_type not in _ALIGNED:
            raise ExecutionError(
                f"model_type={self.model_type!r} cannot be run here; use {', '.join(_ALIGNED)}"
            )
        logs = [math.log(sigma) for sigma in _ALIGNED[self.model_type]]
        places = np.linspace(0, len(logs) - 1, self.steps + 1)
        sigmas = np.exp(np.interp(places, range(len(logs)), logs)).tolist()
        walked = self.steps if self.denoise >= 1 else round(self.steps * self.denoise)
        return ((*sigmas[len(sigmas) - 1 - walked : -1], 0.0) if walked > 0 else (),)


@node("SplitSigmas")
class SplitSigmas:
    """Noise levels before and after a step, which belongs to both."""

    sigmas: tuple[float, ...]
    step: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Split them."""
        return self.sigmas[: self.step + 1], self.sigmas[self.step :]


@node("SplitSigmasDenoise")
class SplitSigmasDenoise:
    """Noise levels before and after a share of the steps is left."""

    sigmas: tuple[float, ...]
    denoise: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Split them."""
        steps = max(len(self.sigmas) - 1, 0)
        left = round(steps * self.denoise)
        return self.sigmas[: len(self.sigmas) - left], self.sigmas[len(self.sigmas) - left - 1 :]
