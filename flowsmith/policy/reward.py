"""Asking for the rewards of sampled flows."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from flowsmith.flows import Flow
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.rollout import Rollout


class Reward(Protocol):
    """What predicts the score of a flow without rendering it."""

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        """Return mean and doubt (a standard deviation), one per pair."""


@torch.no_grad()
def predicted(
    reward: Reward, prompts: Sequence[str], groups: Sequence[Sequence[Rollout]]
) -> tuple[Tensor, Tensor]:
    """Return mean and doubt of every rollout, prompts x samples; equal (prompt, flow) pairs are asked once.

    Where the reward gives no finite number, both are NaN.

    Args:
        reward: The ensemble.
        prompts: One a group.
        groups: Rollouts, equally many for each prompt.

    Raises:
        PolicyError: The answer has another length than the question.
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
            f"reward={type(reward).__name__}: asked for {len(asked)} pairs, it answered with shapes "
            f"{tuple(mean.shape)} and {tuple(std.shape)}; predict must return one mean and one standard deviation "
            "for each, in order"
        )
    finite = (mean + std).isfinite()
    mean, std = (values.masked_fill(~finite, math.nan).float().cpu()[index] for values in (mean, std))
    shape = (len(prompts), len(index) // len(prompts))
    return mean.view(shape), std.view(shape)
