"""Asking for the rewards of sampled flows."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.sampling import Rollout


class Reward(Protocol):
    """What predicts the score of a flow without rendering it."""

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        """Return mean and doubt (a standard deviation), one per pair."""


@torch.no_grad()
def predicted(
    reward: Reward, prompts: Sequence[str], groups: Sequence[Sequence[Rollout]]
) -> tuple[Tensor, Tensor]:
    """Return mean and doubt of every rollout, prompts x samples; equal (prompt, flow) pairs are asked once.

    Args:
        reward: The ensemble.
        prompts: One a group.
        groups: Rollouts, equally many for each prompt.

    Raises:
        PolicyError: The answer has another length than the question, or is not finite.
    """
    numbers: dict[tuple[str, str], int] = {}
    asked: list[tuple[str, Flow]] = []
    index: list[int] = []
    for prompt, group in zip(prompts, groups, strict=True):
        for rollout in group:
            pair = (prompt, rollout.flow.key)
            if pair not in numbers:
                numbers[pair] = len(asked)
                asked.append((prompt, rollout.flow))
            index.append(numbers[pair])
    mean, std = reward.predict([prompt for prompt, _ in asked], [flow for _, flow in asked])
    if mean.shape != (len(asked),) or std.shape != mean.shape:
        raise PolicyError(
            f"the reward answered {len(asked)} pairs with shapes {tuple(mean.shape)} and {tuple(std.shape)}; "
            "it must give one mean and one standard deviation for each"
        )
    wrong = [i for i, fine in enumerate((mean + std).isfinite().tolist()) if not fine]
    if wrong:
        prompt, flow = asked[wrong[0]]
        raise PolicyError(
            f"the reward of {len(wrong)} of {len(asked)} pairs is not finite, the first for prompt "
            f"{prompt[:60]!r}, flow {flow.key}; train the ensemble again"
        )
    shape = (len(prompts), len(index) // len(prompts))
    return mean.float().cpu()[index].view(shape), std.float().cpu()[index].view(shape)
