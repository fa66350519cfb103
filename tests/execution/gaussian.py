"""One Gaussian pixel: its denoiser and its probability-flow path are closed forms."""

import math

from torch import Tensor

MEAN, SPREAD = 0.7, 0.5


def gaussian_guess(x: Tensor, sigma: float) -> Tensor:
    """Posterior mean of a N(MEAN, SPREAD^2) pixel under noise of sigma."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def exact(x: Tensor, sigma: float, target: float) -> Tensor:
    """The probability-flow path of the Gaussian: distance to the mean scales with the marginal's spread."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + target**2) / (SPREAD**2 + sigma**2))


def no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")
