"""Samplers against targets whose solution is known: a Gaussian, whose guess and path are closed forms."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError
from flowsmith.execution.samplers import SAMPLERS, Denoise, DrawNoise, find_sampler
from flowsmith.execution.samplers.deis import process_time
from flowsmith.execution.samplers.dpmpp_2s_ancestral import single_step
from flowsmith.execution.samplers.dpmpp_3m_sde import dpmpp_3m_sde
from flowsmith.execution.samplers.dpmpp_sde import dpmpp_sde
from flowsmith.execution.samplers.euler_ancestral import split_step
from flowsmith.execution.samplers.multistep import integrals
from flowsmith.execution.samplers.registry import Solve
from flowsmith.execution.schedules import SCHEDULERS, karras, sampling_sigmas
from flowsmith.execution.sigmas import NoiseTable
from tests.execution.gaussian import exact, gaussian_guess, no_noise

TABLE = NoiseTable.from_betas()


def whole_table(steps: int) -> list[float]:
    return karras(TABLE, steps)[:-1]  # up to the least sigma, where the log is still finite


def even(steps: int) -> list[float]:
    return torch.linspace(5, 0.5, steps + 1, dtype=torch.float64).tolist()


def error(solve: Solve, sigmas: Sequence[float]) -> float:
    start = torch.linspace(-20, 20, 9, dtype=torch.float64)
    end = solve(gaussian_guess, start, sigmas, no_noise)
    return float((end - exact(start, sigmas[0], sigmas[-1])).abs().max())


def steps_of_2s(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: DrawNoise) -> Tensor:
    for sigma, target in pairwise(sigmas):
        x = single_step(denoise, x, sigma, target)
    return x


# As published, noise left out of those that draw it. Multistep rules start with a step of first order, whose error is
# of second order in all: on this path it is so small that the rule's own order shows, but for UniPC's. The third-order
# DPM-Solver++ is of second order as its authors wrote it into code; IPNDM has its order on even steps only.
ORDERS: dict[str, tuple[Solve, int, Callable[[int], Sequence[float]]]] = {
    **{name: (SAMPLERS[name], 1, whole_table) for name in ("euler", "ddim")},
    **{name: (SAMPLERS[name], 2, whole_table) for name in ("heun", "dpm_2", "dpmpp_2m", "res_multistep")},
    **{name: (SAMPLERS[name], 2, whole_table) for name in ("uni_pc", "uni_pc_bh2")},
    "dpmpp_2s_ancestral": (steps_of_2s, 2, whole_table),
    "dpmpp_sde": (partial(dpmpp_sde, eta=0.0), 2, whole_table),
    "dpmpp_3m_sde": (partial(dpmpp_3m_sde, eta=0.0), 2, whole_table),
    "deis": (SAMPLERS["deis"], 3, whole_table),
    "lms": (SAMPLERS["lms"], 4, whole_table),
    "ipndm": (SAMPLERS["ipndm"], 4, even),
}


@pytest.mark.parametrize("name", ORDERS)
def test_converges_to_the_exact_path_at_its_order(name: str) -> None:
    solve, order, schedule = ORDERS[name]
    coarse, fine = error(solve, schedule(100)), error(solve, schedule(200))
    assert fine < {1: 0.02, 2: 2e-3, 3: 2e-4, 4: 2e-5}[order]
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.3)


def test_every_sampler_has_an_order_or_draws_noise() -> None:
    assert {name for name, sampler in SAMPLERS.items() if not sampler.noisy} <= set(ORDERS)
    assert {name for name in ORDERS if name not in SAMPLERS} == set()


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


def test_dpm_2_step_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    # Slope (10 - 2) / 4 = 2 leads to 6 at sigma 2, half-way from 4 to 1 in log; there it is (6 - 3) / 2 = 1.5.
    end = SAMPLERS["dpm_2"](lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 1.0], no_noise)
    assert end.tolist() == pytest.approx([10 - 1.5 * 3])


def test_lms_second_step_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    # First: slope 2 from 4 to 2 leads to 6. There it is 1.5; through (4, 2) and (2, 1.5) the slope is
    # 1 + sigma / 4, whose integral from 2 to 1 is -1.375.
    end = SAMPLERS["lms"](lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 2.0, 1.0], no_noise)
    assert end.tolist() == pytest.approx([6 - 1.375])


def test_ipndm_second_step_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    # As above, but with the weights of even steps: 3/2 * 1.5 - 1/2 * 2 = 1.25 times -1.
    end = SAMPLERS["ipndm"](lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 2.0, 1.0], no_noise)
    assert end.tolist() == pytest.approx([6 - 1.25])


def test_deis_second_step_by_hand() -> None:
    sigmas = [4.0, 2.0, 1.0]
    time = process_time
    assert [time(0.002), time(80.0)] == pytest.approx([1e-3, 1.0])
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    # As in `lms` slopes are 2 at 4 and 1.5 at 2; the line between them is one in time, integrated by midpoints.
    fine = [2 - (k + 0.5) / 10000 for k in range(10000)]
    rise = (2 - 1.5) / (time(4.0) - time(2.0))
    mean = sum(1.5 + rise * (time(sigma) - time(2.0)) for sigma in fine) / len(fine)
    end = SAMPLERS["deis"](lambda x, s: next(guesses), torch.tensor([10.0]), sigmas, no_noise)
    assert end.tolist() == pytest.approx([6 - mean], rel=1e-6)
    assert abs(mean - 1.375) > 0.01  # of `lms`


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_integrals_of_polynomials_are_exact(count: int) -> None:
    places = [math.log(sigma) for sigma in (3.0, 4.0, 6.0, 7.0)[:count]]
    weights = integrals(places, 3.0, 2.0, math.log)
    assert sum(weights) == pytest.approx(-1.0)
    if count > 1:  # the integral of log s is s (log s - 1)
        moment = sum(w * place for w, place in zip(weights, places, strict=True))
        assert moment == pytest.approx(2 * (math.log(2) - 1) - 3 * (math.log(3) - 1))


def test_res_multistep_second_step_by_hand() -> None:
    guesses = iter([torch.tensor([2.0]), torch.tensor([3.0])])
    # First: 2 + (10 - 2) / 2 = 6. Second: the guess 3 + u / log 2 at l + u, integrated against e^(u - log 2):
    # 3 / 2 + (log 2 - 1 / 2) / log 2, besides 6 / 2.
    end = SAMPLERS["res_multistep"](
        lambda x, s: next(guesses), torch.tensor([10.0]), [4.0, 2.0, 1.0], no_noise
    )
    assert end.tolist() == pytest.approx([4.5 + (math.log(2) - 0.5) / math.log(2)])


def test_ddim_is_song_s_update_in_variance_preserving_latents() -> None:
    # Song et al. 2021, equation 12 without noise, on latents that are sqrt(share) of the signal.
    sigma, target, start = 4.0, 1.0, torch.tensor([10.0, -3.0], dtype=torch.float64)
    share, later = 1 / (1 + sigma**2), 1 / (1 + target**2)
    latents = start * math.sqrt(share)
    noise = (latents - math.sqrt(share) * gaussian_guess(start, sigma)) / math.sqrt(1 - share)
    expected = math.sqrt(later) * gaussian_guess(start, sigma) + math.sqrt(1 - later) * noise
    end = SAMPLERS["ddim"](gaussian_guess, start, [sigma, target], no_noise)
    torch.testing.assert_close(end, expected / math.sqrt(later))


def half_way(sigma: float, target: float) -> float:
    return math.sqrt(sigma * target)


def half_way_down(sigma: float, target: float) -> float:
    return math.sqrt(sigma * split_step(sigma, target)[0])


# Where samplers look within a step besides its start.
MIDDLES = {"dpm_2": half_way, "dpmpp_sde": half_way, "dpmpp_sde_gpu": half_way}
MIDDLES |= {"dpm_2_ancestral": half_way_down, "dpmpp_2s_ancestral": half_way_down}


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_sigma_is_evaluated_and_the_last_guess_is_the_end(name: str, scheduler: str) -> None:
    seen: list[tuple[float, Tensor]] = []

    def guess(x: Tensor, sigma: float) -> Tensor:
        seen.append((sigma, gaussian_guess(x, sigma)))
        return seen[-1][1]

    sigmas = sampling_sigmas(TABLE, scheduler, 5, 1.0, SAMPLERS[name].discards_penultimate)
    end = SAMPLERS[name](guess, torch.linspace(-9, 9, 5), sigmas, lambda: torch.zeros(5))
    expected = [*sigmas[:-1]]
    if name == "heun":  # at the end of a step and at the start of the next
        expected = sorted([*expected, *sigmas[1:-1]], reverse=True)
    if not MIDDLES.get(name):
        assert [sigma for sigma, _ in seen] == expected
    else:
        assert [sigma for sigma, _ in seen[::2]] == expected
        middles = [MIDDLES[name](*pair) for pair in pairwise(sigmas[:-1])]
        assert [sigma for sigma, _ in seen[1::2]] == pytest.approx(middles)
    if not name.startswith("uni_pc"):  # which stops short of 0
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


def test_unknown_sampler_is_refused_by_name() -> None:
    with pytest.raises(ExecutionError, match=r"dpm_fast.*euler"):
        find_sampler("dpm_fast")
