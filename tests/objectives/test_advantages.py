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


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_without_reward_counts_for_no_other(kind: AdvantageKind) -> None:
    """Its group has the advantages that it would have without it."""
    rewards = torch.tensor([[1.0, float("nan"), 2.0, 4.0], [float("inf"), 3.0, 5.0, 9.0]]).double()
    result = advantages(rewards, kind, 0.1, valid=rewards.isfinite())
    without = advantages(rewards[rewards.isfinite()].view(2, 3), kind, 0.1)
    torch.testing.assert_close(result[rewards.isfinite()].view(2, 3), without)
    assert result[0, 1] == result[1, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_with_one_reward_or_none_has_no_advantage(kind: AdvantageKind) -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    valid = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    result = advantages(rewards, kind, valid=valid)
    assert (result[1:] == 0).all()
    if kind == "batch":  # the deviation is that of all rewards: 1, 2, 3 and 5
        torch.testing.assert_close(result[0], torch.tensor([-1.0, 0.0, 1.0]) / (rewards[valid].std() + 1e-4))
    else:
        torch.testing.assert_close(result[0], advantages(rewards[:1], kind)[0])
    assert (advantages(rewards, kind, valid=torch.zeros_like(valid)) == 0).all()


def test_a_valid_reward_that_is_no_number_is_still_refused() -> None:
    rewards = torch.tensor([[0.0, float("nan")], [float("nan"), 2.0]])
    with pytest.raises(ObjectiveError, match="1 of 4 rewards"):
        advantages(rewards, valid=torch.tensor([[True, True], [False, True]]))
