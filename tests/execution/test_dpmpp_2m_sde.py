"""The sampler draws noise of its own, so it is held to means and variances, and to hand values of given draws."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from flowsmith.execution.noise import StepNoise, starting_noise
from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.schedules import karras
from flowsmith.execution.sigmas import NoiseTable
from tests.execution.gaussian import MEAN, SPREAD, gaussian_guess

TABLE = NoiseTable.from_betas()
SHAPE = (1, 4, 8, 8)
dpmpp_2m_sde = find_sampler("dpmpp_2m_sde")


def test_two_steps_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    draws = iter([torch.tensor([1.0]), torch.tensor([-1.0])])
    # A quarter of x is kept when sigma halves. First: 2 + (10 - 2) / 4 + 2 sqrt(3/4) = 5.732051.
    # Second: both steps are log 2 long, guess 3 + (3 - 2) / 2 = 3.5; 3.5 + (5.732051 - 3.5) / 4 - sqrt(3/4).
    end = dpmpp_2m_sde(lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 2.0, 1.0], lambda: next(draws))
    assert end.tolist() == pytest.approx([3.191987])
    assert next(draws, None) is None


def test_a_step_samples_the_posterior_of_a_known_clean_value() -> None:
    # By Bayes: x1 ~ N(D, 1) before x4 = x1 + N(0, 16 - 1) is seen to be 10.
    clean, seen, sigma, target = 2.0, 10.0, 4.0, 1.0
    precision = 1 / target**2 + 1 / (sigma**2 - target**2)
    mean = (clean / target**2 + seen / (sigma**2 - target**2)) / precision
    start = torch.full((2,), seen)
    draws = torch.tensor([0.0, 1.0])
    end = dpmpp_2m_sde(lambda x, s: torch.full_like(x, clean), start, [sigma, target], lambda: draws)
    assert end.tolist() == pytest.approx([mean, mean + 1 / math.sqrt(precision)])


def moments(sigmas: Sequence[float]) -> tuple[float, float]:
    """Mean and variance that the sampler must end with on the Gaussian, where each step is linear.

    The state is (x, previous guess); the guess at sigma is g x + (1 - g) MEAN.
    """
    mean, covariance = np.zeros(2), np.diag([sigmas[0] ** 2, 0.0])
    for k, (sigma, target) in enumerate(pairwise(sigmas)):
        g = SPREAD**2 / (SPREAD**2 + sigma**2)
        extra = 0.0
        if k > 0 and target > 0:
            extra = math.log(sigma / target) / math.log(sigmas[k - 1] / sigma) / 2
        keep = (target / sigma) ** 2
        step = np.array([[keep + (1 - keep) * (1 + extra) * g, -(1 - keep) * extra], [g, 0.0]])
        shift = np.array([(1 - keep) * (1 + extra) * (1 - g) * MEAN, (1 - g) * MEAN])
        mean = step @ mean + shift
        covariance = step @ covariance @ step.T + np.diag([target**2 * (1 - keep), 0.0])
    return float(mean[0]), float(covariance[0, 0])


def sample(seeds: Sequence[int], sigmas: Sequence[float]) -> Tensor:
    start = sigmas[0] * torch.cat([starting_noise(seed, SHAPE) for seed in seeds])
    return dpmpp_2m_sde(gaussian_guess, start, sigmas, StepNoise(seeds, SHAPE))


def test_moments_over_seeds() -> None:
    sigmas = karras(TABLE, 20)
    mean, variance = moments(sigmas)
    end = sample(range(300), sigmas)
    n = end.numel()
    assert float(end.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / n))
    assert float(end.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


def test_variance_tends_to_that_of_the_process_at_second_order() -> None:
    off = []
    for steps in (50, 100):
        sigmas = karras(TABLE, steps)[:-1]
        mean, variance = moments(sigmas)
        # x at both ends is jointly Gaussian; regress the end on the start, which the sampler takes as N(0, s^2).
        before, after = SPREAD**2 + sigmas[0] ** 2, SPREAD**2 + sigmas[-1] ** 2
        slope = after / before
        assert mean == pytest.approx((1 - slope) * MEAN, abs=1e-6)
        off.append(abs(variance - (slope**2 * sigmas[0] ** 2 + after - slope * after)))
    assert off[1] < 0.001
    assert math.log2(off[0] / off[1]) == pytest.approx(2, abs=0.3)


def test_noise_depends_on_the_sample_s_own_seed_only() -> None:
    sigmas = karras(TABLE, 6)
    together = sample([3, 11, 4], sigmas)
    assert torch.equal(together, torch.cat([sample([3], sigmas), sample([11, 4], sigmas)]))
    assert torch.equal(together[2:], sample([4], sigmas))
    assert not torch.equal(together[0], together[2])
