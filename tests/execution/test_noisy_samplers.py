"""Samplers that draw noise, on Gaussian pixels: their mean and variance are known to the last digit.

A Gaussian's guess is linear, and so is every sampler: run on the unit vectors of what it starts from and draws, it
tells the weight of each, and with it the variance of what comes out.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowsmith.execution.noise import StepNoise, starting_noise
from flowsmith.execution.samplers import SAMPLERS, find_sampler
from flowsmith.execution.samplers.dpmpp_3m_sde import dpmpp_3m_sde
from flowsmith.execution.samplers.dpmpp_sde import dpmpp_sde
from flowsmith.execution.samplers.on_flow import sample_on_flow
from flowsmith.execution.schedules import karras, simple
from flowsmith.execution.sigmas import FlowTable, NoiseTable
from tests.execution.gaussian import MEAN, SPREAD, gaussian_guess

TABLE = NoiseTable.from_betas()
NOISY = sorted(name for name, sampler in SAMPLERS.items() if sampler.noisy and not name.endswith("_gpu"))
TENDING = sorted({*NOISY} - {"lcm"})  # that one takes each guess for the picture


def moments(name: str, sigmas: Sequence[float]) -> tuple[float, float]:
    """Return mean and variance of what a sampler makes of the Gaussian."""
    size = 2 + 2 * len(sigmas)  # a constant, the start, and up to two draws a step
    draws: Iterator[Tensor] = iter(torch.eye(size, dtype=torch.float64)[2:])
    constant = torch.eye(size, dtype=torch.float64)[0]

    def guess(x: Tensor, sigma: float) -> Tensor:
        return (SPREAD**2 * x + sigma**2 * MEAN * constant) / (SPREAD**2 + sigma**2)

    start = torch.eye(size, dtype=torch.float64)[1] * sigmas[0]
    weights = find_sampler(name)(guess, start, sigmas, lambda: next(draws))
    return float(weights[0]), float((weights[1:] ** 2).sum())


def test_moments_by_hand() -> None:
    """One ancestral step from 4 to 2: down to 1, up by sqrt(3)."""
    mean, variance = moments("euler_ancestral", [4.0, 2.0])
    keep = 0.25 / 16.25
    slope = 0.25 + 0.75 * keep
    assert mean == pytest.approx(0.75 * (1 - keep) * MEAN)
    assert variance == pytest.approx((4 * slope) ** 2 + 3)


@pytest.mark.parametrize("name", TENDING)
def test_many_steps_end_at_the_target(name: str) -> None:
    mean, variance = moments(name, karras(TABLE, 800))
    assert mean == pytest.approx(MEAN, abs=2e-3)
    assert variance == pytest.approx(SPREAD**2, rel=0.02)


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_solvers_of_the_diffusion_need_fewer_steps(name: str) -> None:
    first = abs(moments("euler_ancestral", karras(TABLE, 40))[1] - SPREAD**2)
    assert abs(moments(name, karras(TABLE, 40))[1] - SPREAD**2) < first / 2


def test_a_consistency_models_answer_is_its_last_guess() -> None:
    """Each step forgets all but a share of the one before: the posterior mean's of fresh noise."""
    mean, variance = 0.0, 14.6**2
    sigmas = [14.6, 3.0, 0.5, 0.0]
    for sigma, target in pairwise(sigmas):
        keep = SPREAD**2 / (SPREAD**2 + sigma**2)
        mean, variance = keep * mean + (1 - keep) * MEAN, keep**2 * variance + target**2
    assert moments("lcm", sigmas) == pytest.approx((mean, variance))


SHAPE = (1, 4, 8, 8)
SEEDS = range(1000, 1256)
MOST = 4.5  # standard errors; one of 16 comparisons goes beyond by chance once in ten thousand runs


def check(ends: Tensor, mean: float, variance: float) -> None:
    """Hold 256 samples of 256 pixels to a mean and a variance, and neighbouring seeds to independence."""
    n = ends.numel()
    assert float(ends.mean()) == pytest.approx(mean, abs=MOST * math.sqrt(variance / n))
    assert float(ends.var()) == pytest.approx(variance, rel=MOST * math.sqrt(2 / n))
    centred = (ends - mean) / math.sqrt(variance)
    assert abs(float((centred[:-1] * centred[1:]).mean())) < MOST / math.sqrt(n)


@pytest.mark.parametrize("name", NOISY)
def test_moments_over_seeds(name: str) -> None:
    sigmas = karras(TABLE, 12)
    start = sigmas[0] * torch.cat([starting_noise(seed, SHAPE) for seed in SEEDS])
    ends = find_sampler(name)(gaussian_guess, start, sigmas, StepNoise(list(SEEDS), SHAPE))
    check(ends, *moments(name, sigmas))


@pytest.mark.parametrize("name", NOISY)
def test_moments_over_seeds_on_a_rectified_flow(name: str) -> None:
    """Sampled as (1 - sigma) clean + sigma noise, they end where they do as clean + ratio noise."""
    sigmas = simple(FlowTable.from_shift(3.0), 12)

    def guess(x: Tensor, sigma: float) -> Tensor:
        """E[clean | x] of the joint Gaussian of both, written without the ratio."""
        variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
        return MEAN + (1 - sigma) * SPREAD**2 / variance * (x - (1 - sigma) * MEAN)

    start = torch.cat([starting_noise(seed, SHAPE) for seed in SEEDS])
    sampler = find_sampler(name)
    ends = sample_on_flow(sampler, guess, start, sigmas, StepNoise(list(SEEDS), SHAPE))
    taken = [min(sigma, 0.9999) for sigma in sigmas]
    check(ends, *moments(name, [sigma / (1 - sigma) for sigma in taken]))


def test_a_solver_of_the_flow_itself_is_run_as_it_stands() -> None:
    sigmas, start = simple(FlowTable.from_shift(3.0), 5), torch.linspace(-2, 2, 5)
    seen: list[float] = []

    def guess(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return x * 0.5

    got = sample_on_flow(SAMPLERS["heun"], guess, start, sigmas, lambda: start)
    assert seen[0] == 1.0
    torch.testing.assert_close(got, SAMPLERS["heun"](guess, start, sigmas, lambda: start))


def test_the_path_of_a_step_in_two_goes_through_its_middle() -> None:
    """With guesses of zero only noise is left: 9 to 4 by way of 6, by hand."""
    draws, start = iter(torch.eye(2, dtype=torch.float64)), torch.zeros(2, dtype=torch.float64)
    end = dpmpp_sde(lambda x, s: torch.zeros_like(x), start, [9.0, 4.0], lambda: next(draws))
    up = 4 * math.sqrt(1 - (4 / 9) ** 2)
    assert end.tolist() == pytest.approx([up * math.sqrt(3 / 5), up * math.sqrt(2 / 5)])


def test_third_step_by_hand() -> None:
    """Steps halve sigma. With noise kept whole a quarter of the past stays, e^-2h = 1/4, and 2h = log 4."""
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([5.0])])
    sigmas, start = [8.0, 4.0, 2.0, 1.0], torch.tensor([10.0])
    end = dpmpp_3m_sde(lambda x, s: next(guesses), start, sigmas, lambda: torch.zeros(1))
    first = 1 - 0.75 / math.log(4)
    x = 2 + 8 / 4
    x = 3 + (x - 3) / 4 + first * 1  # one slope: 3 - 2
    bend = (2 - 1) / 2
    x = 5 + (x - 5) / 4 + first * (2 + bend) - (first / math.log(4) - 0.5) * bend
    assert end.tolist() == pytest.approx([x])
