"""Golden values of ratio, surrogate, KL, aggregation and schedule."""

import math

import pytest
import torch
from torch import Tensor

from flowsmith.objectives.aggregation import Aggregation, Totals, aggregate
from flowsmith.objectives.kl import KLEstimator, kl_estimate
from flowsmith.objectives.ratio import log_ratio
from flowsmith.objectives.schedule import linear_schedule
from flowsmith.objectives.surrogate import clipped_surrogate

MASK = torch.tensor([[True, True, False], [True, False, False]])


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def test_token_ratio_is_a_difference_where_something_was_chosen() -> None:
    new, old = torch.tensor([[-1.0, -2.0, 9.0], [-3.0, 9.0, 9.0]]), torch.zeros(2, 3)
    assert log_ratio(new, old, MASK).tolist() == [[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]]


def test_sequence_ratio_is_the_mean_over_chosen_tokens() -> None:
    new, old = torch.tensor([[-1.0, -2.0, 9.0], [-3.0, 9.0, 9.0]]), torch.zeros(2, 3)
    assert log_ratio(new, old, MASK, "sequence").tolist() == [[-1.5], [-3.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "low", "high"),
    [
        (1.0, 2.0, -2.0, -2.0, False, False),
        (1.5, 2.0, -2.6, 0.0, False, True),  # clipped at 1.3
        (1.5, -2.0, 3.0, 3.0, False, False),  # a bad token that became likelier is pushed back in full
        (0.5, -2.0, 1.6, 0.0, True, False),  # clipped at 0.8
        (0.5, 2.0, -1.0, -1.0, False, False),
    ],
)
def test_every_side_of_the_clipping(
    ratio: float, advantage: float, loss: float, slope: float, low: bool, high: bool
) -> None:
    x = tensor(math.log(ratio)).requires_grad_()
    out = clipped_surrogate(x, tensor(advantage), epsilon_low=0.2, epsilon_high=0.3)
    out.loss.sum().backward()
    assert out.loss.item() == pytest.approx(loss)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(slope)  # d/d log r of -r A is -r A
    assert {name: bool(where) for name, where in out.clipped.items()} == {"low": low, "high": high}


@pytest.mark.parametrize(("estimator", "value"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5)])
def test_kl_estimators(estimator: KLEstimator, value: float) -> None:
    assert kl_estimate(tensor(-1.0), tensor(-1.5), estimator).item() == pytest.approx(value)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_estimators_average_to_the_divergence(estimator: KLEstimator) -> None:
    p, q = tensor(0.7, 0.2, 0.1), tensor(0.3, 0.3, 0.4)
    exact = (p * (p / q).log()).sum()
    torch.testing.assert_close((p * kl_estimate(p.log(), q.log(), estimator)).sum(), exact)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_gradient_in_a_loss_vanishes_at_the_reference(estimator: KLEstimator) -> None:
    x = tensor(-0.3, -2.0).requires_grad_()
    kl_estimate(x, x.detach(), estimator).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Chosen tokens: 1 and 3 of the first sequence, 5 of the second; the first of four micro-batches.
    [
        ("sample_mean", (2.0 + 5.0) / 2),
        ("token_mean", 9.0 / 3),
        ("batch_token_mean", 9.0 / 3 / 4),
        ("constant", 9.0 / (2 * 10)),
    ],
)
def test_aggregation(kind: Aggregation, expected: float) -> None:
    loss = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0]])
    assert aggregate(loss, MASK, kind, Totals.of(MASK, 10, 4)).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["sample_mean", "token_mean", "constant"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_add_up_to_the_whole(kind: Aggregation, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = torch.randn(7, 5, dtype=torch.double, generator=generator)
    mask = torch.rand(7, 5, generator=generator) < 0.5
    mask[3] = False  # a sequence in which everything was forced
    totals = Totals.of(mask, length=5)
    parts = [
        aggregate(a, b, kind, totals)
        for a, b in zip(torch.split(loss, size), torch.split(mask, size), strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), aggregate(loss, mask, kind, totals))
    assert totals.sequences == 6


def test_schedule_rises_falls_and_stays() -> None:
    factors = [linear_schedule(step, warmup=3, total=7) for step in range(9)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert linear_schedule(10**6, warmup=3, total=None) == 1.0
    assert linear_schedule(100, warmup=0, total=10, floor=0.1) == 0.1
