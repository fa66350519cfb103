"""By hand: ratios of sequences, KL, entropy, weights of tokens."""

import math

import pytest
import torch

from flowsmith.objectives.aggregation import Totals
from flowsmith.objectives.kl import KLEstimator, kl_penalty
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.surrogate import SurrogateKind
from tests.objectives.two_sequences import ADVANTAGES, GEOMETRIC, MASK, NEW, OLD, logs, new, slopes


@pytest.mark.parametrize(
    ("surrogate", "high", "loss", "slope"),
    [
        # Within 1.3: -1.224745; outside 1.2: -1.2. The bad sequence, at 0.5, is clipped at 0.8.
        ("clip", 0.3, (-GEOMETRIC + 0.8) / 2, [-GEOMETRIC / 4, -GEOMETRIC / 4, 0.0]),
        ("clip", 0.2, (-1.2 + 0.8) / 2, [0.0, 0.0, 0.0]),
        # Weights 1.2 and 0.8; means of log-probabilities (log 0.75 + log 0.5) / 2 and log 0.25.
        ("cispo", 0.2, (-0.6 * math.log(0.375) + 0.8 * math.log(0.25)) / 2, [-0.3, -0.3, 0.4]),
    ],
)
def test_a_ratio_a_sequence(surrogate: SurrogateKind, high: float, loss: float, slope: list[float]) -> None:
    x = new()
    objective = Objective(ratio="sequence", surrogate=surrogate, epsilon_high=high)
    result, metrics = objective(x, OLD, ADVANTAGES, MASK, Totals.of(MASK))
    result.backward()
    assert result.item() == pytest.approx(loss)
    # By one of n log-probabilities of a sequence of two: r A / n / 2.
    assert slopes(x) == pytest.approx(slope)
    assert metrics["clip_ratio/region_mean"][1] == metrics["ratio_mean"][1] == 2
    assert metrics["ratio_mean"][0].item() == pytest.approx(GEOMETRIC + 0.5)


@pytest.mark.parametrize(
    ("kl", "values", "slope"),
    [
        # d = log 1.5, 0, log 0.5 against a reference of 0.5 everywhere.
        ("k2", [math.log(1.5) ** 2 / 2, 0.0, math.log(0.5) ** 2 / 2], [math.log(1.5), 0.0, math.log(0.5)]),
        # exp(-d) - 1 + d; by log pi: 1 - exp(-d) = 1 - 1 / 1.5, 0, 1 - 2.
        ("k3", [1 / 1.5 - 1 + math.log(1.5), 0.0, 2 - 1 + math.log(0.5)], [1 / 3, 0.0, -1.0]),
    ],
)
def test_kl_in_the_loss(kl: KLEstimator, values: list[float], slope: list[float]) -> None:
    x = new()
    objective = Objective(kl=kl, beta=0.5)
    loss, metrics = objective(x, OLD, torch.zeros(2).double(), MASK, Totals.of(MASK), OLD)
    loss.backward()
    weights = [0.5 / 4, 0.5 / 4, 0.5 / 2]  # beta x 1 / (2 sequences x 2 or 1 tokens)
    assert loss.item() == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=True)))
    assert slopes(x) == pytest.approx([w * s for w, s in zip(weights, slope, strict=True)])
    assert metrics["kl"][0].item() == pytest.approx(sum(values))
    assert metrics["kl"][1] == 3


def test_kl_weighed_by_the_ratio() -> None:
    x, corrected = new(), Objective(kl_correction=True, beta=0.5, aggregation="token_mean")
    loss, metrics = corrected(x, OLD, torch.zeros(2).double(), MASK, Totals.of(MASK), OLD)
    loss.backward()
    # r (1 / r - 1 + log r) with r = 1.5, 1, 0.5, here also the ratio to the reference; by log pi: r log r.
    values = [1 - 1.5 + 1.5 * math.log(1.5), 0.0, 1 - 0.5 + 0.5 * math.log(0.5)]
    assert loss.item() == pytest.approx(0.5 * sum(values) / 3)
    assert slopes(x) == pytest.approx([0.25 * math.log(1.5), 0.0, 0.25 / 3 * math.log(0.5)])
    assert metrics["kl"][0].item() == pytest.approx(sum(values))


def test_kl_in_the_reward_stays_out_of_the_loss() -> None:
    reference = logs([[0.25, 0.25, 0.1], [1.0, 0.1, 0.1]])
    # d = log 2, log 2 and log 0.5.
    expected = torch.tensor([2 * math.log(2), -math.log(2)], dtype=torch.double)
    torch.testing.assert_close(kl_penalty(OLD, reference, MASK), expected)
    objective = Objective(kl="k1", kl_in="reward", beta=0.5)
    loss, metrics = objective(NEW, OLD, ADVANTAGES, MASK, Totals.of(MASK), reference)
    assert loss == Objective()(NEW, OLD, ADVANTAGES, MASK, Totals.of(MASK))[0]
    # Measured under the policy as it is now: log 3, log 2, log 0.25 = log 1.5 in all.
    assert metrics["kl"][0].item() == pytest.approx(math.log(1.5))


def test_entropy_bonus() -> None:
    x, entropy = new(), torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]).double().requires_grad_()
    objective = Objective(entropy_bonus=0.1, aggregation="token_mean")
    loss, metrics = objective(x, OLD, torch.zeros(2).double(), MASK, Totals.of(MASK), entropy=entropy)
    loss.backward()
    assert loss.item() == pytest.approx(-0.1 * (1 + 2 + 3) / 3)
    assert entropy.grad is not None
    torch.testing.assert_close(entropy.grad, MASK.double() * (-0.1 / 3))
    assert (metrics["entropy"][0].item(), metrics["entropy"][1].item()) == (6, 3)


def test_weights_that_are_adapted_replace_the_fixed_ones() -> None:
    entropy, totals = NEW.exp().requires_grad_(), Totals.of(MASK)
    now, _ = Objective(beta=9.0, entropy_bonus=9.0)(
        new(), OLD, ADVANTAGES, MASK, totals, OLD, entropy, beta=0.2, entropy_bonus=0.3
    )
    fixed, _ = Objective(beta=0.2, entropy_bonus=0.3)(new(), OLD, ADVANTAGES, MASK, totals, OLD, entropy)
    assert now == fixed


def test_weights_of_tokens_scale_their_surrogate_alone() -> None:
    x, weights = new(), torch.tensor([[2.0, 0.5, 9.0], [0.25, 9.0, 9.0]]).double()
    objective = Objective(aggregation="token_mean", beta=0.3)
    loss, metrics = objective(x, OLD, ADVANTAGES, MASK, Totals.of(MASK), OLD, weights=weights)
    loss.backward()
    # Surrogates -1.2 (clipped), -1 and 0.8 (clipped), and k3 as in test_kl_in_the_loss.
    kl = 1 / 1.5 - 1 + math.log(1.5) + 1 + math.log(0.5)
    assert loss.item() == pytest.approx((2 * -1.2 + 0.5 * -1 + 0.25 * 0.8 + 0.3 * kl) / 3)
    assert slopes(x) == pytest.approx([0.3 / 3 / 3, -0.5 / 3, -0.3 / 3])
    assert metrics["ratio_mean"][0].item() == pytest.approx(1.5 + 1 + 0.5)
