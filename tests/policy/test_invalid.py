"""A reward may fail for a moment, but not for good."""

import pytest

from flowsmith.policy import PolicyError
from flowsmith.policy.invalid import InvalidRewards


def test_a_whole_cycle_may_fail_once_in_ten_but_not_more() -> None:
    counted = InvalidRewards(limit=0.1)
    counted.add(8, 8)
    for _ in range(9):
        counted.add(0, 8)
    counted.add(8, 8)  # the first one is forgotten by now
    with pytest.raises(
        PolicyError, match=r"9 samples of the last 10 cycles, 1 of 8 in this one; invalid_limit=0.1"
    ):
        counted.add(1, 8)


def test_a_reward_that_fails_from_the_beginning_stops_soon() -> None:
    counted = InvalidRewards(limit=0.25)
    counted.add(4, 4)
    counted.add(4, 4)
    with pytest.raises(PolicyError, match="12 samples of the last 3 cycles"):
        counted.add(4, 4)


def test_a_few_bad_samples_never_stop_it_and_a_limit_of_zero_stops_at_one() -> None:
    counted = InvalidRewards(limit=0.125)
    for _ in range(50):
        counted.add(1, 8)
    with pytest.raises(PolicyError, match="repair or retrain the reward"):
        InvalidRewards(limit=0.0).add(1, 1000)


def test_a_resumed_count_goes_on() -> None:
    counted, resumed = InvalidRewards(limit=0.1), InvalidRewards(limit=0.1)
    counted.add(8, 8)
    resumed.load_state_dict(counted.state_dict())
    with pytest.raises(PolicyError):
        resumed.add(1, 8)


@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan")])
def test_a_limit_outside_of_its_range(limit: float) -> None:
    with pytest.raises(PolicyError, match=r"use 0\.\.1"):
        InvalidRewards(limit)
