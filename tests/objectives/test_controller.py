"""Adaptive weights: factors by hand, closed loops that reach their target, and resuming."""

import math
from typing import Any

import pytest

from flowsmith.objectives.controller import AdaptiveWeight
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.objective import Objective


@pytest.mark.parametrize(
    ("measured", "samples", "expected"),
    [
        (2.2, 500, 0.105),  # error 0.1, half a horizon: x 1.05
        (1.9, 1000, 0.095),  # error -0.05, a whole horizon: x 0.95
        (50.0, 1000, 0.12),  # error 24, clipped at 0.2
        (-3.0, 1000, 0.08),  # an estimate may be negative; clipped at -0.2
        (50.0, 9000, 0.12),  # never more than a fifth at once
        (2.0, 1000, 0.1),
    ],
)
def test_factors_by_hand(measured: float, samples: float, expected: float) -> None:
    weight = AdaptiveWeight(0.1, target=2.0, horizon=1000)
    weight.update(measured, samples)
    assert weight.value == pytest.approx(expected)


def test_a_bonus_grows_where_a_penalty_falls() -> None:
    weight = AdaptiveWeight(0.1, target=2.0, horizon=1000, acts="bonus")
    weight.update(1.8, 500)  # error -0.1
    assert weight.value == pytest.approx(0.105)
    weight.update(9.0, 1000)
    assert weight.value == pytest.approx(0.105 * 0.8)


def test_a_weight_without_target_is_fixed() -> None:
    weight = AdaptiveWeight(0.0)
    weight.update(float("nan"), 100)
    weight.load_state_dict({"value": 3.0})
    assert weight.value == 0


def test_a_closed_loop_reaches_its_target() -> None:
    """KL that falls with its weight, entropy that rises with it: both settle where they should."""
    beta, bonus = AdaptiveWeight(0.001, 0.5, 100), AdaptiveWeight(10.0, 0.5, 100, "bonus")
    for _ in range(400):
        beta.update(0.1 / (0.05 + beta.value), 50)
        bonus.update(bonus.value / (1 + bonus.value), 50)
    assert 0.1 / (0.05 + beta.value) == pytest.approx(0.5, rel=1e-3)
    assert bonus.value == pytest.approx(1.0, rel=1e-3)


def test_a_resumed_weight_goes_on_bit_by_bit() -> None:
    def measure(step: int) -> float:
        return 0.4 + 0.3 * math.sin(step)

    one = AdaptiveWeight(0.04, 0.5, 1000)
    for step in range(10):
        one.update(measure(step), 64)
    two = AdaptiveWeight(0.04, 0.5, 1000)
    two.load_state_dict(one.state_dict())
    for step in range(10, 20):
        one.update(measure(step), 64)
        two.update(measure(step), 64)
    assert one.value == two.value != 0.04


def test_an_objective_says_how_its_weights_adapt() -> None:
    objective = Objective(
        beta=0.1, kl_target=2.0, kl_horizon=1000, entropy_bonus=0.2, entropy_target=1.0, entropy_horizon=100
    )
    beta, bonus = objective.beta_controller(), objective.entropy_controller()
    assert (beta.value, bonus.value) == (0.1, 0.2)
    beta.update(2.2, 500)
    bonus.update(0.9, 50)
    assert (beta.value, bonus.value) == pytest.approx((0.105, 0.21))
    fixed = Objective(beta=0.1).beta_controller()
    fixed.update(9.0, 500)
    assert fixed.value == 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"value": -1.0},
        {"value": 0.0, "target": 1.0},
        {"value": 1.0, "target": 0.0},
        {"value": 1.0, "target": 1.0, "horizon": 0},
    ],
)
def test_weights_that_could_not_adapt_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ObjectiveError, match="start it above 0"):
        AdaptiveWeight(**settings)


@pytest.mark.parametrize("measured", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(measured: float) -> None:
    weight = AdaptiveWeight(0.1, 1.0)
    with pytest.raises(ObjectiveError, match="measured"):
        weight.update(measured, 10)
    assert weight.value == 0.1
