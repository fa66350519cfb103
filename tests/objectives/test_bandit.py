"""Every published objective learns the best of ten arms."""

from typing import get_args

import pytest
import torch

from flowsmith.objectives.advantages import AdvantageKind, advantages
from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.entropy_mask import entropy_threshold, top_entropy_mask
from flowsmith.objectives.kl import kl_penalty
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.presets import Preset, objective

REWARDS = torch.arange(10) / 10


def learned(loss: Objective, updates: int = 2) -> float:
    """Return the expected reward, 0.45 at first, after 100 batches of two groups of eight, used twice each."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.Adam([theta], 0.1)
    mask = torch.ones(16, 1, dtype=torch.bool)
    reference = torch.full((16, 1), 0.1).log()
    beta, bonus = loss.beta_controller(), loss.entropy_controller()
    for _ in range(100):
        old = theta.detach().log_softmax(0)
        arms = old.exp().multinomial(16, replacement=True, generator=generator)
        rewards = REWARDS[arms]
        if loss.kl_in == "reward":
            rewards = rewards - beta.value * kl_penalty(old[arms][:, None], reference, mask, loss.kl)
        merits = advantages(rewards.view(2, 8), loss.advantage, loss.advantage_epsilon).flatten()
        for _ in range(updates):
            logprobs = theta.log_softmax(0)
            entropy = -(logprobs.exp() * logprobs).sum().expand(16, 1)
            threshold = entropy_threshold(entropy[mask], loss.top_entropy)
            value, metrics = loss(
                logprobs[arms][:, None], old[arms][:, None], merits, mask, Totals.of(mask), reference, entropy,
                beta=beta.value, entropy_bonus=bonus.value,
                policy_mask=top_entropy_mask(entropy, mask, threshold),
            )  # fmt: skip
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        beta.update(float(metrics["kl"][0] / 16), 16)
        bonus.update(float(metrics["entropy"][0] / 16), 16)
    return float((theta.detach().softmax(0) * REWARDS).sum())


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_preset_learns(preset: Preset) -> None:
    assert learned(objective(preset)) > 0.8


@pytest.mark.parametrize("kind", get_args(AdvantageKind))
def test_every_advantage_learns(kind: AdvantageKind) -> None:
    assert learned(Objective(advantage=kind)) > 0.85


def test_a_controller_keeps_the_policy_near_its_reference() -> None:
    free, bound = learned(Objective()), learned(Objective(beta=0.05, kl_target=0.3, kl_horizon=16))
    assert bound < free - 0.1
    assert bound > 0.6
