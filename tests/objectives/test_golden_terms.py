"""By hand: ratios of sequences, KL, entropy, the mask of high entropy, truncated sequences."""

import math

import pytest
import torch
from torch import Tensor

from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.entropy_mask import entropy_threshold, top_entropy_mask
from flowsmith.objectives.kl import KLEstimator, kl_penalty
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.surrogate import SurrogateKind
from flowsmith.objectives.truncation import overlong_punishment, without_truncated

MASK = torch.tensor([[True, True, False], [True, False, False]])
ADVANTAGES = torch.tensor([1.0, -1.0], dtype=torch.double)


def logs(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double).log()


# Probabilities were 0.5. Ratios 1.5 and 1 in a good sequence, 0.5 in a bad one; the rest is forced or padding.
OLD = logs([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
NEW = logs([[0.75, 0.5, 0.9], [0.25, 0.9, 0.9]])
GEOMETRIC = 1.5**0.5  # of 1.5 and 1: 1.224745


def new() -> Tensor:
    return NEW.clone().requires_grad_()


def slopes(x: Tensor) -> list[float]:
    assert x.grad is not None
    assert (x.grad[~MASK] == 0).all()
    return [float(value) for value in x.grad[MASK]]


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


@pytest.mark.parametrize(
    ("share", "threshold"), [(0.2, 5.0), (0.21, 4.0), (0.4, 4.0), (0.8, 2.0), (1.0, 1.0), (0.01, 5.0)]
)
def test_threshold_of_the_highest_share(share: float, threshold: float) -> None:
    assert entropy_threshold(torch.tensor([3.0, 5.0, 1.0, 4.0, 2.0]), share) == threshold


def test_only_tokens_of_high_entropy_teach_and_all_count() -> None:
    entropy = torch.tensor([[0.5, 2.0, 9.0], [1.0, 9.0, 9.0]])
    threshold = entropy_threshold(entropy[MASK], 0.5)  # two of three: 1 and 2
    policy_mask = top_entropy_mask(entropy, MASK, threshold)
    assert policy_mask.tolist() == [[False, True, False], [True, False, False]]
    x = new()
    objective = Objective(top_entropy=0.5, aggregation="token_mean", beta=0.3)
    reference = logs([[0.75, 0.5, 0.5], [0.5, 0.5, 0.5]])
    loss, metrics = objective(x, OLD, ADVANTAGES, MASK, Totals.of(MASK), reference, policy_mask=policy_mask)
    loss.backward()
    # Surrogate: out, -1, 0.8 (clipped); k3: 0, 0, 2 - 1 + log 0.5; three tokens in the denominator.
    assert loss.item() == pytest.approx((-1 + 0.8 + 0.3 * (1 + math.log(0.5))) / 3)
    assert slopes(x) == pytest.approx([0.0, -1 / 3, -0.3 / 3])
    assert metrics["clip_ratio/region_mean"][1] == 3
    assert entropy_threshold(torch.zeros(0), 0.5) == 0


def test_truncated_sequences_leave_the_denominators() -> None:
    mask = without_truncated(MASK, torch.tensor([False, True]))
    aggregations: list[Aggregation] = ["sample_mean", "token_mean"]
    for aggregation in aggregations:
        loss, metrics = Objective(aggregation=aggregation)(NEW, OLD, ADVANTAGES, mask, Totals.of(mask))
        assert loss.item() == pytest.approx((-1.2 - 1) / 2)  # tokens of the first sequence alone
        assert metrics["clip_ratio/high_mean"][1] == 2


def test_punishment_of_long_completions_grows_over_the_last_tokens() -> None:
    lengths = torch.tensor([10, 80, 85, 90, 95, 100, 120])
    punishment = overlong_punishment(lengths, limit=100, buffer=20)
    assert punishment.tolist() == pytest.approx([0, 0, -0.25, -0.5, -0.75, -1, -1])
