"""Golden values by hand, and what must hold for every kind of advantage."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsmith.objectives.advantages import AdvantageKind, advantages
from flowsmith.objectives.errors import ObjectiveError

KINDS: list[AdvantageKind] = list(get_args(AdvantageKind))
# Group 1: mean 2, deviations -1 0 1, sample variance 1. Group 2: mean 4, deviations -2 0 2, sample variance
# 4.
REWARDS = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]], dtype=torch.double)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("group", [[-1 / 1.5, 0.0, 1 / 1.5], [-2 / 2.5, 0.0, 2 / 2.5]]),
        ("unscaled", [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0]]),
        # 1 - (2 + 3) / 2, 2 - (1 + 3) / 2, ...
        ("leave_one_out", [[-1.5, 0.0, 1.5], [-3.0, 0.0, 3.0]]),
    ],
)
def test_golden(kind: AdvantageKind, expected: list[list[float]]) -> None:
    torch.testing.assert_close(
        advantages(REWARDS, kind, epsilon=0.5), torch.tensor(expected, dtype=torch.double)
    )


def test_batch_divides_by_the_deviation_of_all_rewards() -> None:
    # 1 2 3 2 4 6: mean 3, squares 4 1 0 1 1 9 = 16, sample variance 3.2.
    expected = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0]], dtype=torch.double) / (3.2**0.5 + 0.1)
    torch.testing.assert_close(advantages(REWARDS, "batch", epsilon=0.1), expected)


@pytest.mark.parametrize("kind", KINDS)
@given(value=st.floats(-1e3, 1e3, width=32), samples=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_equal_rewards_give_exact_zeros(kind: AdvantageKind, value: float, samples: int) -> None:
    rewards = torch.stack([torch.full((samples,), value), torch.arange(float(samples))])
    assert (advantages(rewards, kind)[0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_a_group_permutes_its_advantages(kind: AdvantageKind) -> None:
    rewards = torch.randn(5, 7, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(advantages(rewards[:, order], kind), advantages(rewards, kind)[:, order])


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_a_group_changes_nothing_within_it(kind: AdvantageKind) -> None:
    rewards = torch.randn(3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    shifted = advantages(rewards + 5.0, kind)
    torch.testing.assert_close(shifted, advantages(rewards, kind))


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="samples >= 2"):
        advantages(torch.zeros(4, 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused_and_counted(bad: float) -> None:
    with pytest.raises(ObjectiveError, match="1 of 4 rewards"):
        advantages(torch.tensor([[0.0, 1.0], [bad, 2.0]]))
