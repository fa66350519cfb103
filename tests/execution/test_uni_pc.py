import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss

from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.samplers.uni_pc import step_weights
from flowsmith.execution.schedules import karras
from flowsmith.execution.sigmas import NoiseTable
from tests.execution.gaussian import exact, gaussian_guess, no_noise

uni_pc = find_sampler("uni_pc")


def end_of(guesses: list[float], sigmas: list[float]) -> float:
    """Where the sampler gets to from 10 with given guesses; all of them must be asked for."""
    rest = iter(guesses)
    end = uni_pc(lambda x, s: torch.full_like(x, next(rest)), torch.tensor([10.0]), sigmas, no_noise)
    assert next(rest, None) is None
    return float(end)


def test_it_takes_a_schedule_without_the_penultimate_sigma() -> None:
    assert uni_pc.discards_penultimate
    assert not find_sampler("dpmpp_2m").discards_penultimate


def test_two_steps_by_hand() -> None:
    # Steps halve sigma, so both are log 2 long. Predicted: 2 + (10 - 2) / 2 = 6. Corrected, with half of
    # B(h) = log 2: 6 + log(2) / 2 * (3 - 2) = 6.346574. Last: 3 + (6.346574 - 3) / 2 = 4.673287.
    assert end_of([2.0, 3.0], [4.0, 2.0, 1.0]) == pytest.approx(4.673287, abs=1e-6)


def test_the_end_is_almost_clean() -> None:
    # As above, but the last step goes to 0.001: 3 + (6.346574 - 3) * 0.001 / 2.
    assert end_of([2.0, 3.0], [4.0, 2.0, 0.0]) == pytest.approx(3.001673, abs=1e-6)
    assert end_of([2.0], [4.0, 0.0]) == pytest.approx(2.002, abs=1e-6)  # one step: straight


def test_three_steps_by_hand() -> None:
    # Up to sigma 2 as above: 6.346574. Then second order, steps of log 2 = h each, guesses 2, 3, 5.
    # Predicted: 3 + 3.346574 / 2 and a half of h * (3 - 2); corrected over places -1 and 1, where the exact
    # integrals of e^(u - h) (u / h)^p are (with J0 = 1 / (2 h)) h J1 = 1 - J0 and h J2 = 1 - 2 J1.
    h = math.log(2)
    first = (1 - 1 / (2 * h)) / h
    second = (1 - 2 * first) / h
    # A parabola through (-1, -1), (0, 0), (1, 2) is 1.5 v + 0.5 v^2.
    corrected = 3 + 3.346574 / 2 + h * (1.5 * first + 0.5 * second)
    assert end_of([2.0, 3.0, 5.0], [4.0, 2.0, 1.0, 0.5]) == pytest.approx(5 + (corrected - 5) / 2, abs=1e-5)


def test_predictor_of_second_order_by_hand() -> None:
    seen = []

    def guess(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(float(x))
        return torch.tensor([{4.0: 2.0, 2.0: 3.0, 1.0: 5.0}[sigma]])

    uni_pc(guess, torch.tensor([10.0]), [4.0, 2.0, 1.0, 0.5], no_noise)
    # 10 and 6 as above; then 3 + 3.346574 / 2 + log(2) / 2 * (3 - 2) = 5.019860.
    assert seen == pytest.approx([10.0, 6.0, 5.019860], abs=1e-5)


@pytest.mark.parametrize("h", [0.005, 0.05, 0.7, 5.0])
@pytest.mark.parametrize("places", [[-0.8, 1.0], [-0.8, -2.1], [-0.8, -2.1, 1.0]])
def test_weights_integrate_polynomials_exactly(places: list[float], h: float) -> None:
    nodes, quadrature = leggauss(40)
    v = (nodes + 1) / 2
    for power in range(1, len(places) + 1):
        integral = float((quadrature / 2 * h * np.exp(h * (v - 1)) * v**power).sum())
        sampled = sum(w * place**power for w, place in zip(step_weights(places, h), places, strict=True))
        assert sampled == pytest.approx(integral, rel=1e-6)


def test_one_place_takes_half_of_the_step() -> None:
    assert step_weights([1.0], 0.6) == pytest.approx([0.3])
    assert step_weights([-0.5], 0.6) == pytest.approx([-0.6])


def test_orders_rise_to_three_and_fall_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def weights(places: list[float], h: float, exponential: bool) -> list[float]:
        asked.append(len(places))
        return step_weights(places, h, exponential)

    monkeypatch.setattr("flowsmith.execution.samplers.uni_pc.step_weights", weights)
    sigmas = [8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.0]
    uni_pc(gaussian_guess, torch.tensor([10.0]), sigmas, no_noise)
    # Other points of predictor and corrector, step by step; the last step has no corrector.
    assert asked == [0, 1, 1, 2, 2, 3, 2, 3, 1, 2, 0]


def test_more_exact_than_its_second_order_relative() -> None:
    sigmas = karras(NoiseTable.from_betas(), 20)[:-1]
    start = torch.linspace(-20, 20, 9, dtype=torch.float64)
    goal = exact(start, sigmas[0], sigmas[-1])
    off = {
        name: float((find_sampler(name)(gaussian_guess, start, sigmas, no_noise) - goal).abs().max())
        for name in ("uni_pc", "dpmpp_2m")
    }
    assert off["uni_pc"] < off["dpmpp_2m"] / 5
