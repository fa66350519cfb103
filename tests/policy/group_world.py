"""Groups for tests: sampled ones with rewards as given, and made-up ones for what looks at rewards only."""

from collections.abc import Sequence

import torch

from flowsmith.policy import Policy, generate
from flowsmith.policy.groups import Group, judged
from flowsmith.prompts import Prompt


def groups_of(
    policy: Policy,
    prompts: Sequence[str],
    samples: int,
    cycle: int = 0,
    rewards: Sequence[tuple[float, ...]] | None = None,
) -> list[Group]:
    """Sample; rewards are 0, 1, 2, ... within each group unless they are given."""
    rollouts = generate(policy, prompts, samples, seed=cycle)
    mean = (
        torch.tensor(rewards)
        if rewards is not None
        else torch.arange(float(samples)).expand(len(prompts), -1)
    )
    named = [Prompt(id=f"p{place}", text=text) for place, text in enumerate(prompts)]
    return judged(named, rollouts, mean, torch.zeros_like(mean), 0.5, cycle)


def made_up(name: str, rewards: Sequence[float], cycle: int = 0, attempt: int = 0, length: int = 5) -> Group:
    """Return a group of that name with these rewards and flows of that length."""
    count = len(rewards)
    return Group(
        prompt_id=name,
        prompt=f"text of {name}",
        prompt_tokens=3,
        cycle=cycle,
        attempt=attempt,
        tokens=tuple(tuple(range(length)) for _ in range(count)),
        logprobs=tuple((-0.25,) * length for _ in range(count)),
        keys=tuple(f"{name}/{sample}" for sample in range(count)),
        mean=tuple(rewards),
        doubt=(0.5,) * count,
        rewards=tuple(rewards),
    )
