"""What is logged of a cycle's groups, by hand."""

import math

import pytest

from flowsmith.policy.cycle_metrics import refill_values, replay_values, sampled_values
from tests.policy.group_world import made_up

NAN = float("nan")
TRIES = [
    [made_up("a", (1.0, 3.0, NAN), length=4)],
    [made_up("b", (2.0, 2.0, 2.0), length=9), made_up("c", (0.0, 5.0, 9.0), attempt=1, length=6)],
]


def test_by_hand() -> None:
    values = sampled_values(TRIES, budget=9)
    assert values == pytest.approx(
        {
            "reward": 2.0,  # what stepped in says nothing of the policy on the cycle's own prompts
            "reward_std": math.sqrt(2) / 2,
            "frac_reward_zero_std": 0.5,
            "reward/invalid": 1.0,
            "rewards/ensemble/mean": 2.0,
            "rewards/ensemble/std": math.sqrt(2 / 4),
            "rewards/ensemble/doubt": 0.5,
            "completions/mean_length": 6.5,
            "completions/min_length": 4.0,
            "completions/max_length": 9.0,
            "completions/clipped_ratio": 0.5,
            "completions/mean_terminated_length": 4.0,
            "completions/min_terminated_length": 4.0,
            "completions/max_terminated_length": 4.0,
            "unique_flows": 6.0,
        }
    )
    assert refill_values(TRIES) == {"refill/sampled": 1.0, "refill/left": 0.0}
    assert refill_values([*TRIES, [made_up("d", (1.0, 1.0))] * 3])["refill/left"] == pytest.approx(1 / 3)
    past = [made_up("x", (0.0, 1.0), cycle=3), made_up("y", (0.0, 1.0), cycle=6)]
    assert replay_values(past, 7, 11) == {"replay/groups": 2.0, "replay/age": 2.5, "replay/held": 11.0}
    assert replay_values([], 7, 0) == {"replay/groups": 0.0, "replay/age": 0.0, "replay/held": 0.0}


def test_without_a_reward_there_is_none_to_log() -> None:
    values = sampled_values([[made_up("a", (NAN, NAN), length=9)]], budget=9)
    assert values["reward/invalid"] == 2
    assert values["frac_reward_zero_std"] == values["completions/clipped_ratio"] == 1
    missing = {name for name, value in values.items() if math.isnan(value)}
    assert missing == {
        "reward",
        "reward_std",
        "rewards/ensemble/mean",
        "rewards/ensemble/std",
        "completions/mean_terminated_length",
        "completions/min_terminated_length",
        "completions/max_terminated_length",
    }
