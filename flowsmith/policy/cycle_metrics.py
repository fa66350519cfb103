"""What is logged of a cycle's groups, under TRL's names; `docs/metrics.md` explains each."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from flowsmith.policy.groups import Group


def sampled_values(tries: Sequence[Sequence[Group]], budget: int) -> dict[str, float]:
    """Return what is known of what the policy wrote for the cycle's own prompts, before it learned.

    Args:
        tries: For each prompt of all processes its own group, then those that stepped in for it.
        budget: Most tokens of a flow; one that takes them all counts as clipped.
    """
    own = [groups[0] for groups in tries]
    known = [[reward for reward in group.rewards if not math.isnan(reward)] for group in own]
    means = [mean for group in own for mean in group.mean if not math.isnan(mean)]
    doubts = [doubt for group in own for doubt in group.doubt if not math.isnan(doubt)]
    lengths = [len(tokens) for group in own for tokens in group.tokens]
    ended = [length for length in lengths if length < budget]
    return {
        "reward": _mean([reward for rewards in known for reward in rewards]),
        "reward_std": _mean([stdev(rewards) for rewards in known if len(rewards) > 1]),
        "frac_reward_zero_std": fmean(not group.varied for group in own),
        "reward/invalid": float(invalid_count(group for groups in tries for group in groups)),
        "rewards/ensemble/mean": _mean(means),
        "rewards/ensemble/std": stdev(means) if len(means) > 1 else math.nan,
        "rewards/ensemble/doubt": _mean(doubts),
        "completions/mean_length": fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": 1 - len(ended) / len(lengths),
        "completions/mean_terminated_length": _mean(ended),
        "completions/min_terminated_length": float(min(ended, default=math.nan)),
        "completions/max_terminated_length": float(max(ended, default=math.nan)),
        "unique_flows": float(len({key for group in own for key in group.keys})),
    }


def refill_values(tries: Sequence[Sequence[Group]]) -> dict[str, float]:
    """Return how often others stepped in, and with what success."""
    return {
        "refill/sampled": float(sum(len(groups) - 1 for groups in tries)),
        "refill/left": fmean(not groups[-1].varied for groups in tries),
    }


def replay_values(past: Sequence[Group], cycle: int, held: int) -> dict[str, float]:
    """Return how many groups came again, how old they are in cycles, and how many could have come."""
    ages = [float(cycle - group.cycle) for group in past]
    return {
        "replay/groups": float(len(past)),
        "replay/age": fmean(ages) if ages else 0.0,
        "replay/held": float(held),
    }


def invalid_count(groups: Iterable[Group]) -> int:
    """Return how many samples have no reward."""
    return sum(math.isnan(reward) for group in groups for reward in group.rewards)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
