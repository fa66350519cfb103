"""Settings and calls that cannot work say what was set, why, and what to set instead."""

from typing import Any

import pytest
import torch

from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.truncation import overlong_punishment

NAN = float("nan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon_low": 1.5}, "epsilon_low=1.5.*use 0 < epsilon_low <= 1"),
        ({"epsilon_low": 0.0}, "epsilon_low=0.0"),
        ({"epsilon_high": 0.0}, "epsilon_high=0.0.*epsilon_high > 0"),
        ({"epsilon_high": NAN}, "epsilon_high=nan is not finite"),
        ({"beta": -1.0}, "beta=-1.0.*use beta >= 0"),
        ({"entropy_bonus": -0.1}, "entropy_bonus=-0.1.*entropy_bonus >= 0"),
        ({"surrogate": "dual_clip", "dual_clip": 1.0}, "dual_clip=1.0.*use dual_clip > 1"),
        ({"surrogate": "sapo", "temperature_positive": 0.0}, "use temperature_positive > 0"),
        ({"surrogate": "sapo", "temperature_negative": -1.0}, "use temperature_negative > 0"),
        ({"advantage_epsilon": 0.0}, "use advantage_epsilon > 0"),
        ({"top_entropy": 0.0}, "top_entropy=0.0.*use 0 < top_entropy <= 1"),
        ({"top_entropy": 1.2}, "top_entropy=1.2"),
        ({"kl_horizon": 0.0}, "use kl_horizon > 0"),
        ({"entropy_horizon": 0.0}, "use entropy_horizon > 0"),
        ({"beta": 0.1, "kl_target": 0.0}, "use kl_target > 0"),
        ({"entropy_bonus": 0.1, "entropy_target": -1.0}, "use entropy_target > 0"),
        ({"ratio": "sequences"}, "ratio=sequences.*token, sequence"),
        ({"surrogate": None}, "surrogate=None.*cispo"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Objective(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": "sequence", "aggregation": "token_mean"}, "use aggregation=sample_mean"),
        ({"ratio": "sequence", "aggregation": "batch_token_mean"}, "use aggregation=sample_mean"),
        ({"ratio": "sequence", "aggregation": "constant"}, "use aggregation=sample_mean"),
        ({"ratio": "sequence", "top_entropy": 0.2}, "use ratio=token, or top_entropy=1"),
        ({"beta": 0.1, "kl": "k1"}, "use kl=k3 or k2, kl_correction=true, or kl_in=reward"),
        ({"kl": "k2", "kl_correction": True}, "kl=k2 with kl_correction=true.*use kl=k3 or k1"),
        ({"kl": "k1", "kl_in": "reward", "kl_correction": True}, "use kl_in=loss, or kl_correction=false"),
        ({"beta": 0.1, "kl": "k2", "kl_in": "reward"}, "use kl=k1, or kl_in=loss"),
        ({"beta": 0.1, "kl": "k3", "kl_in": "reward"}, "use kl=k1, or kl_in=loss"),
        ({"kl_target": 0.1}, "kl_target=0.1 with beta=0.0.*use beta > 0"),
        ({"entropy_target": 0.1}, "entropy_target=0.1 with entropy_bonus=0.0.*use entropy_bonus > 0"),
        ({"dual_clip": 2.0}, "dual_clip=2.0 with surrogate=clip.*use surrogate=dual_clip"),
        ({"surrogate": "cispo", "dual_clip": 2.0}, "use surrogate=dual_clip"),
        ({"temperature_positive": 2.0}, "use surrogate=sapo"),
        ({"surrogate": "dual_clip", "temperature_negative": 2.0}, "use surrogate=sapo"),
        ({"surrogate": "sapo", "epsilon_low": 0.1}, "leave epsilon_low at 0.2"),
        ({"surrogate": "sapo", "epsilon_high": 0.28}, "use surrogate=clip or dual_clip or cispo"),
    ],
)
def test_settings_that_cannot_work_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Objective(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"kl": "k1"},  # nothing weighs it: measured only
        {"kl": "k3", "kl_in": "reward"},
        {"ratio": "sequence", "surrogate": "cispo"},
        {"ratio": "sequence", "surrogate": "sapo"},
        {"ratio": "sequence", "surrogate": "dual_clip", "dual_clip": 1.01},
        {"surrogate": "sapo", "aggregation": "constant", "top_entropy": 0.2},
        {"epsilon_low": 1},
    ],
)
def test_settings_that_can(settings: dict[str, Any]) -> None:
    assert Objective(**settings).beta == 0


@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"beta": 0.1}, {}, "beta=0.1 without reference_logprobs"),
        ({}, {"beta": 0.2}, "beta=0.2 without reference_logprobs"),
        ({"top_entropy": 0.2}, {}, "top_entropy=0.2 without policy_mask"),
        ({"entropy_bonus": 0.1}, {}, "entropy_bonus=0.1 without an entropy"),
        ({"entropy_bonus": 0.1}, {"entropy": torch.ones(1, 2)}, "gradient"),
    ],
)
def test_a_call_without_what_the_settings_need(
    settings: dict[str, Any], call: dict[str, Any], message: str
) -> None:
    x, mask = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ObjectiveError, match=message):
        Objective(**settings)(x, torch.zeros(1, 2), torch.ones(1), mask, Totals.of(mask), **call)


@pytest.mark.parametrize("buffer", [0, 101])
def test_a_buffer_beyond_the_limit(buffer: int) -> None:
    with pytest.raises(ObjectiveError, match=r"use 1\.\.100"):
        overlong_punishment(torch.ones(1), limit=100, buffer=buffer)
