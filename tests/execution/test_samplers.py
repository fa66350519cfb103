"""Samplers against targets whose solution is known: a Gaussian, whose guess and path are closed forms."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError
from flowsmith.execution.samplers import SAMPLERS, find_sampler
from flowsmith.execution.samplers.euler_ancestral import split_step
from flowsmith.execution.schedules import SCHEDULERS, karras, sampling_sigmas
from flowsmith.execution.sigmas import NoiseTable
from tests.execution.gaussian import MEAN, SPREAD, exact, gaussian_guess, no_noise

TABLE = NoiseTable.from_betas()


def error(name: str, steps: int) -> float:
    sigmas = karras(TABLE, steps)[:-1]  # up to the least sigma, where the log is still finite
    start = torch.linspace(-20, 20, 9, dtype=torch.float64)
    end = SAMPLERS[name](gaussian_guess, start, sigmas, no_noise)
    return float((end - exact(start, sigmas[0], sigmas[-1])).abs().max())


@pytest.mark.parametrize(
    ("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("uni_pc", 2)]
)
def test_converges_to_the_exact_path_at_its_order(name: str, order: int) -> None:
    coarse, fine = error(name, 100), error(name, 200)
    assert fine < 0.2 if order == 1 else fine < 0.01
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.3)


def test_euler_step_by_hand() -> None:
    # x = 10 at 4, guess 2: slope (10 - 2) / 4 = 2, so 10 - 2 * 3 = 4 at sigma 1.
    end = SAMPLERS["euler"](lambda x, s: torch.full_like(x, 2.0), torch.tensor([10.0]), [4.0, 1.0], no_noise)
    assert end.tolist() == [4.0]


def test_dpmpp_2m_second_step_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    # Steps halve sigma, so both are log 2 long. First: 2 + (10 - 2) / 2 = 6.
    # Second: guess 3 + (3 - 2) / 2 = 3.5; 3.5 + (6 - 3.5) / 2 = 4.75.
    end = SAMPLERS["dpmpp_2m"](lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 2.0, 1.0], no_noise)
    assert end.tolist() == pytest.approx([4.75])


def test_heun_steps_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([5.0])])
    # Slope (10 - 2) / 4 = 2 leads to 4 at sigma 1, where it is (4 - 3) / 1 = 1: 10 - 1.5 * 3 = 5.5.
    # The step to 0 is straight and ends at its only guess.
    end = SAMPLERS["heun"](lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 1.0], no_noise)
    assert end.tolist() == pytest.approx([5.5])
    assert SAMPLERS["heun"](lambda x, s: next(guesses), end, [1.0, 0.0], no_noise).tolist() == [5.0]


def test_ddim_is_song_s_update_in_variance_preserving_latents() -> None:
    # Song et al. 2021, equation 12 without noise, on latents that are sqrt(share) of the signal.
    sigma, target, start = 4.0, 1.0, torch.tensor([10.0, -3.0], dtype=torch.float64)
    share, later = 1 / (1 + sigma**2), 1 / (1 + target**2)
    latents = start * math.sqrt(share)
    noise = (latents - math.sqrt(share) * gaussian_guess(start, sigma)) / math.sqrt(1 - share)
    expected = math.sqrt(later) * gaussian_guess(start, sigma) + math.sqrt(1 - later) * noise
    end = SAMPLERS["ddim"](gaussian_guess, start, [sigma, target], no_noise)
    torch.testing.assert_close(end, expected / math.sqrt(later))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_sigma_is_evaluated_and_the_last_guess_is_the_end(name: str, scheduler: str) -> None:
    seen: list[tuple[float, Tensor]] = []

    def guess(x: Tensor, sigma: float) -> Tensor:
        seen.append((sigma, gaussian_guess(x, sigma)))
        return seen[-1][1]

    sigmas = sampling_sigmas(TABLE, scheduler, 5, 1.0, SAMPLERS[name].discards_penultimate)
    end = SAMPLERS[name](guess, torch.linspace(-9, 9, 5), sigmas, lambda: torch.zeros(5))
    twice = sigmas[1:-1] if name == "heun" else []  # at the end of a step and at the start of the next
    assert [sigma for sigma, _ in seen] == sorted([*sigmas[:-1], *twice], reverse=True)
    if name != "uni_pc":  # which stops short of 0
        torch.testing.assert_close(end, seen[-1][1])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_repeated_sigma_is_a_step_of_nothing(name: str) -> None:
    start = torch.linspace(-9, 9, 5)
    once, twice = (
        SAMPLERS[name](gaussian_guess, start, sigmas, lambda: torch.zeros(5))
        for sigmas in ([3.0, 2.0, 0.0], [3.0, 2.0, 2.0, 0.0])
    )
    torch.testing.assert_close(once, twice)


def test_ancestral_split_keeps_the_variance() -> None:
    for sigma, target in pairwise([14.6, 3.0, 2.9, 0.03]):
        down, up = split_step(sigma, target)
        assert down**2 + up**2 == pytest.approx(target**2)
        # Posterior variance of x_target given x_sigma and the clean value.
        assert up**2 == pytest.approx(1 / (1 / target**2 + 1 / (sigma**2 - target**2)))
    assert split_step(1.0, 0.0) == (0.0, 0.0)


def ancestral_moments(sigmas: Sequence[float]) -> tuple[float, float]:
    """Mean and variance that the sampler must end with: with a linear guess it is a linear recursion."""
    mean, variance = 0.0, sigmas[0] ** 2
    for sigma, target in pairwise(sigmas):
        down, up = split_step(sigma, target)
        keep = SPREAD**2 / (SPREAD**2 + sigma**2)  # of x in the guess
        slope = down / sigma + (1 - down / sigma) * keep
        mean = slope * mean + (1 - down / sigma) * (1 - keep) * MEAN
        variance = slope**2 * variance + up**2
    return mean, variance


def test_ancestral_moments_on_a_gaussian() -> None:
    sigmas = karras(TABLE, 25)
    mean, variance = ancestral_moments(sigmas)
    n = 200_000
    generator = torch.Generator().manual_seed(3)

    def draw() -> Tensor:
        return torch.randn(n, generator=generator)

    end = SAMPLERS["euler_ancestral"](gaussian_guess, sigmas[0] * draw(), sigmas, draw)
    assert float(end.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / n))
    assert float(end.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


def test_ancestral_tends_to_the_target() -> None:
    mean, variance = ancestral_moments(karras(TABLE, 1000))
    assert mean == pytest.approx(MEAN, abs=0.002)
    assert variance == pytest.approx(SPREAD**2, rel=0.02)


def test_unknown_sampler_is_refused_by_name() -> None:
    with pytest.raises(ExecutionError, match=r"dpm_fast.*euler"):
        find_sampler("dpm_fast")
