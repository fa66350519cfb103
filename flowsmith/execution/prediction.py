"""What a network's output says about the clean latents."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.sigmas import Table

Prediction = Literal["epsilon", "v_prediction", "sample", "lcm", "flow"]
"""Of noise; of v (Salimans & Ho 2022, arXiv 2202.00512); of the clean latents; of noise, distilled for consistency
(Luo et al. 2023, arXiv 2310.04378); of a rectified flow's direction, noise - clean."""

_LCM_SPREAD, _LCM_TIMES = 0.5, 10.0  # of the boundary condition in section 4 of the LCM paper's code


@dataclass(frozen=True)
class Reading:
    """A guess of the clean latents as ``of_x * x + of_output * output``.

    Attributes:
        of_x: What it takes of the noisy latents.
        of_output: What it takes of the network's output.
    """

    of_x: float
    of_output: float

    def guess(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the guess behind noisy latents ``x``."""
        part = output * self.of_output
        if self.of_x == 0:
            return part
        # The latents stand first: a sum is laid out in memory as its first part, and networks round by that.
        return (x if self.of_x == 1 else x * self.of_x) + part

    def nothing(self, x: Tensor) -> Tensor:
        """Return the output that stands for a guess of zeros."""
        return x * (-self.of_x / self.of_output)


def reading(prediction: Prediction, table: Table, sigma: float) -> Reading:
    """Return how a network's output is read at noise level ``sigma`` > 0."""
    if prediction in ("epsilon", "flow"):
        return Reading(1.0, -sigma)
    if prediction == "v_prediction":
        return Reading(1 / (sigma**2 + 1), -sigma / math.sqrt(sigma**2 + 1))
    if prediction == "sample":
        return Reading(0.0, 1.0)
    if prediction == "lcm":
        time = table.timestep(sigma) * _LCM_TIMES
        skip = _LCM_SPREAD**2 / (time**2 + _LCM_SPREAD**2)
        out = time / math.sqrt(time**2 + _LCM_SPREAD**2)
        return Reading(out + skip, -out * sigma)
    raise ExecutionError(
        f"prediction={prediction!r} cannot be read; use epsilon, v_prediction, sample, lcm or flow"
    )


def unmoved(prediction: Prediction, sigma: float, read: Reading) -> float:
    """Return k such that ``output - k * x`` is a multiple of v, the noise less the signal in equal measure.

    Of the ratio of two outputs' spreads the multiple is no part.
    """
    if prediction == "epsilon":
        return sigma / (sigma**2 + 1)
    return (1 / (sigma**2 + 1) - read.of_x) / read.of_output
