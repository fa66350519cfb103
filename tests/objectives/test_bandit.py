"""Every published objective learns the best of ten arms."""

from typing import NamedTuple, get_args

import pytest
import torch

from flowsmith.objectives.advantages import AdvantageKind, advantages
from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.entropy_mask import entropy_threshold, top_entropy_mask
from flowsmith.objectives.kl import kl_penalty
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.presets import Preset, objective

REWARDS = torch.arange(10) / 10


class Run(NamedTuple):
    reward: float
    """Expected at the end; 0.45 at first."""
    kl: float
    """Mean over the second half."""
    entropy: float
    """Likewise."""


def run(loss: Objective, updates: int = 2) -> Run:
    """Learn from 100 batches of two groups of eight, each used twice."""
    measured = []
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
        kl, nats = (float(metrics[name][0] / metrics[name][1]) for name in ("kl", "entropy"))
        beta.update(kl, 16)
        bonus.update(nats, 16)
        measured.append((kl, nats))
    later = torch.tensor(measured[50:]).mean(0).tolist()
    return Run(float((theta.detach().softmax(0) * REWARDS).sum()), *later)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_preset_learns(preset: Preset) -> None:
    assert run(objective(preset)).reward > 0.8


@pytest.mark.parametrize("kind", get_args(AdvantageKind))
def test_every_advantage_learns(kind: AdvantageKind) -> None:
    assert run(Objective(advantage=kind)).reward > 0.85


def test_weights_adapt_until_kl_and_entropy_are_held() -> None:
    """Weights swing around their targets; without them KL ends above 1 and entropy below 0.5."""
    free = run(Objective())
    assert free.kl > 1
    assert free.entropy < 0.5
    kl = run(Objective(beta=0.3, kl_target=0.3, kl_horizon=64))
    assert kl.kl == pytest.approx(0.3, rel=0.25)
    assert 0.6 < kl.reward < free.reward
    entropy = run(Objective(entropy_bonus=0.3, entropy_target=1.5, entropy_horizon=64))
    assert entropy.entropy == pytest.approx(1.5, rel=0.25)
    assert 0.6 < entropy.reward < free.reward
