"""The composed loss: golden values, invariants, refused combinations, and a bandit that must learn."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from flowsmith.objectives.advantages import AdvantageKind, advantages
from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.errors import ObjectiveError
from flowsmith.objectives.objective import Objective

AGGREGATIONS: list[Aggregation] = list(get_args(Aggregation))
OLD = torch.log(torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], dtype=torch.double))
# Ratios 1.5 and 1 in a good sequence, 0.5 in a bad one; the rest is forced or padding.
NEW = torch.log(torch.tensor([[0.75, 0.5, 0.9], [0.25, 0.9, 0.9]], dtype=torch.double))
MASK = torch.tensor([[True, True, False], [True, False, False]])
ADVANTAGES = torch.tensor([1.0, -1.0], dtype=torch.double)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    # Token losses: -1.2 (clipped), -1, and 0.8 (clipped).
    [("sample_mean", (-1.1 + 0.8) / 2), ("token_mean", -1.4 / 3), ("constant", -1.4 / 8)],
)
def test_golden_loss_and_metrics(aggregation: Aggregation, expected: float) -> None:
    loss, metrics = Objective(aggregation=aggregation)(NEW, OLD, ADVANTAGES, MASK, Totals.of(MASK, length=4))
    assert loss.item() == pytest.approx(expected)
    counted = {name: (value.item(), count.item()) for name, (value, count) in metrics.items()}
    assert counted["clip_ratio/low_mean"] == (1, 3)
    assert counted["clip_ratio/high_mean"] == (1, 3)
    assert counted["clip_ratio/region_mean"] == (2, 3)
    assert counted["ratio_mean"] == pytest.approx((1.5 + 1 + 0.5, 3))


def test_golden_kl_and_entropy() -> None:
    reference = OLD.clone()
    d1, d3 = math.log(1.5), math.log(0.5)
    kl = sum(math.exp(-d) - 1 + d for d in (d1, 0.0, d3))
    entropy = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]], dtype=torch.double)
    totals = Totals.of(MASK)
    loss, metrics = Objective(beta=0.5)(NEW, OLD, ADVANTAGES, MASK, totals, reference, entropy)
    assert loss.item() == pytest.approx(-1.4 / 3 + 0.5 * kl / 3)
    assert metrics["kl"][0].item() == pytest.approx(kl)
    assert metrics["entropy"][0].item() == pytest.approx(6.0)
    assert metrics["entropy"][1].item() == 3


def test_golden_sequence_ratio() -> None:
    loss, metrics = Objective(ratio="sequence", aggregation="sample_mean")(
        NEW, OLD, ADVANTAGES, MASK, Totals.of(MASK)
    )
    # Geometric means: sqrt(1.5 * 1) = 1.2247, clipped to 1.2; 0.5, clipped to 0.8.
    assert loss.item() == pytest.approx((-1.2 + 0.8) / 2)
    assert metrics["clip_ratio/region_mean"][1].item() == 2


def _random(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(6, 5, dtype=torch.double, generator=generator)
    mask = torch.rand(6, 5, generator=generator) < 0.6
    mask[:, 0] = True
    return logprobs, mask


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_first_update_has_ratio_one_and_the_policy_gradient(aggregation: Aggregation) -> None:
    logprobs, mask = _random()
    x = logprobs.clone().requires_grad_()
    merits = torch.arange(6, dtype=torch.double) - 2.5
    totals = Totals.of(mask, length=5)
    loss, metrics = Objective(aggregation=aggregation)(x, logprobs, merits, mask, totals)
    loss.backward()
    assert metrics["ratio_mean"][0] == metrics["ratio_mean"][1]
    assert metrics["clip_ratio/region_mean"][0] == 0
    weight = {
        "sample_mean": 1 / (mask.sum(1, keepdim=True) * 6.0),
        "token_mean": torch.ones(6, 1) / mask.sum(),
        "constant": torch.ones(6, 1) / 30,
    }[aggregation]
    torch.testing.assert_close(x.grad, -merits[:, None] * mask * weight.double())


@pytest.mark.parametrize("kind", get_args(AdvantageKind))
def test_group_without_variance_has_zero_gradient(kind: AdvantageKind) -> None:
    logprobs, mask = _random()
    x = logprobs.clone().requires_grad_()
    rewards = torch.tensor([[0.1] * 3, [0.3, 0.1, 0.2]], dtype=torch.double)
    loss, _ = Objective()(x, logprobs - 0.1, advantages(rewards, kind).flatten(), mask, Totals.of(mask))
    loss.backward()
    assert x.grad is not None
    assert (x.grad[:3] == 0).all()
    assert (x.grad[3:][mask[3:]] != 0).any()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_order_of_sequences_does_not_matter(aggregation: Aggregation) -> None:
    logprobs, mask = _random()
    old, merits = logprobs + 0.1, torch.arange(6, dtype=torch.double) - 2.5
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    objective = Objective(aggregation=aggregation, beta=0.1)
    whole, _ = objective(logprobs, old, merits, mask, Totals.of(mask), old)
    permuted, _ = objective(
        logprobs[order], old[order], merits[order], mask[order], Totals.of(mask), old[order]
    )
    torch.testing.assert_close(whole, permuted)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_forced_tokens_count_nowhere(aggregation: Aggregation) -> None:
    """Whatever stands at a forced token, and however many there are, nothing moves."""
    logprobs, mask = _random()
    merits = torch.arange(6, dtype=torch.double) - 2.5
    objective = Objective(aggregation=aggregation, beta=0.1)

    def measure(values: Tensor, m: Tensor) -> tuple[float, dict[str, tuple[float, float]]]:
        loss, metrics = objective(
            values, values * 0.9, merits, m, Totals.of(m, length=5), values * 0.8, values.abs()
        )
        return loss.item(), {name: (a.item(), b.item()) for name, (a, b) in metrics.items()}

    before = measure(logprobs, mask)
    changed = torch.where(mask, logprobs, torch.full_like(logprobs, -50.0))
    assert measure(changed, mask) == before
    longer = torch.cat([changed, torch.full((6, 4), -9.0, dtype=torch.double)], 1)
    loss, metrics = measure(longer, torch.cat([mask, torch.zeros(6, 4, dtype=torch.bool)], 1))
    assert loss == pytest.approx(before[0], abs=1e-15)
    assert {k: pytest.approx(v) for k, v in before[1].items()} == metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon_low": 1.5}, "epsilon_low"),
        ({"epsilon_high": 0.0}, "epsilon_high"),
        ({"beta": -1.0}, "beta >= 0"),
        ({"beta": 0.1, "kl": "k1"}, "use k3"),
        ({"ratio": "sequence"}, "sample_mean"),
    ],
)
def test_combinations_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Objective(**settings)


def test_beta_needs_a_reference() -> None:
    with pytest.raises(ObjectiveError, match="reference_logprobs"):
        Objective(beta=0.1)(NEW, OLD, ADVANTAGES, MASK, Totals.of(MASK))


@pytest.mark.parametrize("kind", get_args(AdvantageKind))
def test_a_bandit_learns_its_best_arm(kind: AdvantageKind) -> None:
    """Ten arms of reward 0, 0.1 .. 0.9: the expected reward, 0.45 at first, must rise above 0.85."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.Adam([theta], 0.1)
    reward = torch.arange(10) / 10
    mask = torch.ones(16, 1, dtype=torch.bool)
    for _ in range(200):
        logprobs = theta.log_softmax(0)
        arms = logprobs.detach().exp().multinomial(16, replacement=True, generator=generator)
        merits = advantages(reward[arms].view(2, 8), kind).flatten()
        old = logprobs.detach()[arms][:, None]
        loss, _ = Objective()(logprobs[arms][:, None], old, merits, mask, Totals.of(mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (theta.softmax(0) * reward).sum() > 0.85
