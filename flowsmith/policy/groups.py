"""A group: the flows that were sampled for one prompt, and what they are worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flowsmith.policy.rollout import Rollout
from flowsmith.prompts import Prompt


@dataclass(frozen=True)
class Group:
    """Samples of one prompt, as plain values: it travels between processes and lies in checkpoints as it is.

    Attributes:
        prompt_id: Name of the prompt.
        prompt: Its text.
        prompt_tokens: Its length, from ``bos`` to ``<flow>``.
        cycle: When it was sampled.
        attempt: 0, or which refill it is.
        tokens: Codec ids of each flow.
        logprobs: Of each token when it was sampled; 0 where forced.
        keys: Name of each flow; equal flows have equal keys.
        mean: Predicted score of each flow; NaN where the reward gave no number.
        doubt: Its standard deviation.
        rewards: What is learned from; NaN where the reward gave no number.
    """

    prompt_id: str
    prompt: str
    prompt_tokens: int
    cycle: int
    attempt: int
    tokens: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]
    keys: tuple[str, ...]
    mean: tuple[float, ...]
    doubt: tuple[float, ...]
    rewards: tuple[float, ...]

    @property
    def varied(self) -> bool:
        """Whether its rewards differ: where they do not, no sample is better than another."""
        known = {reward for reward in self.rewards if not math.isnan(reward)}
        return len(known) > 1

    @property
    def cost(self) -> int:
        """Tokens that a forward pass computes, the prompt once for all samples."""
        return self.prompt_tokens + sum(map(len, self.tokens))

    @property
    def length(self) -> int:
        """Tokens of all its sequences, prompts included."""
        return sum(self.prompt_tokens + len(tokens) for tokens in self.tokens)


def judged(
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[Rollout]],
    mean: Tensor,
    doubt: Tensor,
    penalty: float,
    cycle: int,
    attempt: int = 0,
) -> list[Group]:
    """Put rollouts and predictions together.

    Args:
        prompts: One a group.
        groups: Rollouts, equally many for each prompt.
        mean: Predicted scores, prompts x samples.
        doubt: Their standard deviations, same shape.
        penalty: Lambda: a reward is mean - lambda x doubt.
        cycle: When they were sampled.
        attempt: 0, or which refill they are.
    """
    columns = (mean.tolist(), doubt.tolist(), (mean - penalty * doubt).tolist())
    return [
        Group(
            prompt.id,
            prompt.text,
            len(rollouts[0].prompt_ids),
            cycle,
            attempt,
            tuple(rollout.flow_tokens for rollout in rollouts),
            tuple(rollout.logprobs for rollout in rollouts),
            tuple(rollout.flow.key for rollout in rollouts),
            *(tuple(values) for values in row),
        )
        for prompt, rollouts, *row in zip(prompts, groups, *columns, strict=True)
    ]
